"""One tokenizer for all servers here: its tokens are bytes."""

from pathlib import Path

import pytest
from minisgl_tui.api.simulated import byte_tokenizer
from minisgl_tui.engine.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    directory: Path = tmp_path_factory.mktemp("bytes")
    return byte_tokenizer(directory)
