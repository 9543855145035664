"""The engine: scheduler, prefix cache, runner and models. ``LLM`` is the way in from Python.

Importing this package imports neither torch nor transformers; naming ``LLM`` does.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .llm import LLM
    from .sampling import Grammar, SamplingParams

__all__ = ["LLM", "Grammar", "SamplingParams"]


def __getattr__(name: str) -> Any:
    if name == "LLM":
        from .llm import LLM

        return LLM
    if name in ("Grammar", "SamplingParams"):
        from . import sampling

        return getattr(sampling, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
