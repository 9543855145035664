"""What the model tests share."""

import os
from pathlib import Path

# Before torch is imported: threads that wait by spinning make every test many times slower as soon
# as anything else runs on the machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
import torch
from minisgl_tui.engine.model_store import resolve


@pytest.fixture(scope="session", autouse=True)
def two_threads():
    """Several test processes on a small machine would otherwise fight over its cores."""
    torch.set_num_threads(min(2, os.cpu_count() or 1))


@pytest.fixture(scope="session")
def smollm() -> Path:
    """The default model, fetched and converted on the first run on a machine."""
    return resolve("smollm2-135m")
