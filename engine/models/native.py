"""A model directory as the native decoder runs it: config, weights, refusals."""

from collections.abc import Callable
from pathlib import Path

import torch

from ..errors import UserError
from .config import read_config
from .decoder import Decoder
from .files import survey
from .weights import check_layers, load_weights


class NativeCheckpoint:
    """A ``Checkpoint`` for ``Decoder``. UserError where config.json is not one it computes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config = read_config(directory)
        self.architecture = self.config.architecture
        self.vocab_size = self.config.vocab_size
        self.max_context = self.config.max_position
        self.attention = self.config.attention
        self.compiles = self.config.experts is None

    def load(
        self,
        *,
        dtype: torch.dtype,
        device: torch.device,
        progress: Callable[[float], None] = lambda fraction: None,
    ) -> Decoder:
        """The decoder with the directory's weights; UserError for whatever cannot be used."""
        stored = survey(self.directory)
        check_layers(stored, self.config, self.directory)
        with torch.device("meta"):
            model = Decoder(self.config)
        try:
            load_weights(
                model, stored, self.directory, dtype=dtype, device=device, progress=progress
            )
        except torch.OutOfMemoryError as error:
            need = sum(p.numel() for p in model.parameters()) * dtype.itemsize
            raise UserError(
                f"{self.directory}: the weights need {need / 1e9:.1f} GB, more than {device} has "
                "free; use a smaller model or --dtype bfloat16"
            ) from error
        return model.eval()
