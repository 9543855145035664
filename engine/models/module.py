"""The decoder's parts: modules that are plain calls."""

from torch import nn


class Module(nn.Module):
    """``module(...)`` is ``module.forward(...)``.

    PyTorch asks for hooks first. Nobody registers any on these, and asking nine times a layer is a
    quarter of what a decode step costs in Python.
    """

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.__call__ = cls.forward
