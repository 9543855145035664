"""GGUF files into safetensors directories, once, through transformers' own GGUF reader.

Weights are dequantized to bfloat16; config, generation config, tokenizer and chat template come
from the file's metadata. Everything heavy is imported inside the functions.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import UserError
from .build_dir import Progress
from .config import parse_config
from .fields import Unsupported
from .quiet import quiet

_STAGE = "converting"


def convert_gguf(source: Path, directory: Path, progress: Progress) -> None:
    """Write a Hugging Face model directory for the GGUF file ``source`` into ``directory``.

    Raises UserError for a file that is not GGUF, is damaged, or holds a model nobody here can run.
    """
    progress(f"{_STAGE} {source.name}: reading its description", None)
    with source.open("rb") as stream:
        if stream.read(4) != b"GGUF":
            raise UserError(f"{source} is not a GGUF file: it does not begin with GGUF")
    try:
        _convert(source, directory, progress)
    except (UserError, MemoryError):
        raise
    except Exception as error:  # what the readers raise on a damaged file is anybody's guess
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's fault, not the file's
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{source} cannot be converted: {reason}") from error


def _convert(source: Path, directory: Path, progress: Progress) -> None:
    import torch
    import transformers
    from gguf import GGUFReader
    from safetensors.torch import save_file
    from transformers import modeling_gguf_pytorch_utils as reader

    from .examine import check_depth

    found = {"gguf_file": source.name, "local_files_only": True}
    stored = GGUFReader(source)
    with quiet(transformers):
        config = transformers.AutoConfig.from_pretrained(source.parent, **found)
        layers = config.get_text_config(decoder=True).num_hidden_layers
        check_depth(layers, len(stored.tensors), source)
        with torch.device("meta"):
            model = transformers.AutoModelForCausalLM.from_config(config)
        config.architectures = [type(model).__name__]
        config.dtype = torch.bfloat16
        _check_runs(type(model), config, source, len(stored.tensors))
        with _reported(reader, f"{_STAGE} {source.name}", progress):
            loaded = reader.load_gguf_checkpoint(
                source, return_tensors=True, model_to_load=model, torch_dtype=torch.bfloat16
            )
        progress(f"{_STAGE} {source.name}: writing weights", None)
        tensors = {name: tensor.contiguous() for name, tensor in loaded["tensors"].items()}
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
        config.save_pretrained(directory)
        transformers.GenerationConfig.from_model_config(config).save_pretrained(directory)
        progress(f"{_STAGE} {source.name}: tokenizer", None)
        tokenizer = transformers.AutoTokenizer.from_pretrained(source.parent, **found)
        tokenizer.save_pretrained(directory)
    field = stored.get_field("tokenizer.ggml.pre")
    _tidy_tokenizer(directory, "" if field is None else str(field.contents()))


def _check_runs(model_class: Any, config: Any, source: Path, tensors: int) -> None:
    """Raise UserError, before the weights are converted, where neither implementation runs it."""
    from .examine import examine

    try:
        parse_config(json.loads(config.to_json_string(use_diff=False)), source)
    except Unsupported:
        examine(model_class, config, source, tensors=tensors)


def _tidy_tokenizer(directory: Path, kind: str) -> None:
    """Remove what only concerned the conversion, and restore what it does not carry over."""
    settings = directory / "tokenizer_config.json"
    kept = json.loads(settings.read_text(encoding="utf-8"))
    for key in ("is_local", "local_files_only", "gguf_file", "name_or_path"):
        kept.pop(key, None)
    settings.write_text(json.dumps(kept, indent=2, ensure_ascii=False), encoding="utf-8")
    if kind == "smollm":
        # SmolLM splits numbers into digits. GGUF records that only as the name of its splitter,
        # which transformers drops: "2024" would then become tokens the model rarely saw.
        path = directory / "tokenizer.json"
        tokenizer = json.loads(path.read_text(encoding="utf-8"))
        digits = {"type": "Digits", "individual_digits": True}
        steps = [digits, tokenizer["pre_tokenizer"]]
        tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": steps}
        path.write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")


@contextmanager
def _reported(reader: Any, stage: str, progress: Progress) -> Iterator[None]:
    """While open, transformers' progress bar over the tensors goes to ``progress`` instead."""

    def count(tensors: Iterable[Any], **_: Any) -> Iterator[Any]:
        tensors = list(tensors)
        for done, tensor in enumerate(tensors):
            progress(stage, done / len(tensors))
            yield tensor

    original = reader.tqdm
    reader.tqdm = count
    try:
        yield
    finally:
        reader.tqdm = original
