"""Tokenizers of a few hundred tokens, one of each kind of spelling."""

import json
from pathlib import Path
from typing import Any


def save_byte_level(directory: Path, *, spaced: bool = False) -> Path:
    """GPT-2's kind: every byte is a token, and some pairs are. ``spaced`` puts a space in front of
    every text, as RoBERTa's does."""
    from tokenizers import Tokenizer as Raw
    from tokenizers import decoders, models, pre_tokenizers

    merges = [("u", "e"), ("t", "r"), ("tr", "ue"), ('"', ":"), ("Ġ", "a"), ("1", "2"), ("}", "}")]
    specials = ["<unk>", "<s>", "</s>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*specials, *alphabet, *("".join(pair) for pair in merges)]
    vocab = {piece: index for index, piece in enumerate(pieces)}
    raw = Raw(models.BPE(vocab=vocab, merges=merges))
    raw.add_special_tokens(specials)
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=spaced)
    raw.decoder = decoders.ByteLevel()
    return _save(raw, directory)


def save_sentencepiece(directory: Path, *, prepends: bool = True) -> Path:
    """Llama 2's kind: ▁ for spaces, one token per byte for what the vocabulary lacks. Gemma's does
    not put a space in front of every text."""
    from tokenizers import Tokenizer as Raw
    from tokenizers import decoders, models, normalizers

    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += ["▁", *"abcdefghijklmnopqrstuvwxyzHW,.!é", "▁t", "he", "▁the", "lo", "llo"]
    merges = [("▁", "t"), ("h", "e"), ("▁t", "he"), ("l", "lo"), ("l", "o")]
    vocab = {piece: index for index, piece in enumerate(pieces)}
    raw = Raw(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True))
    raw.add_special_tokens(["<unk>", "<s>", "</s>"])
    spaces = normalizers.Replace(" ", "▁")
    raw.normalizer = (
        normalizers.Sequence([normalizers.Prepend("▁"), spaces]) if prepends else spaces
    )
    strip = [decoders.Strip(content=" ", left=1)] if prepends else []
    raw.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    return _save(raw, directory)


def save_word_piece(directory: Path) -> Path:
    """A kind whose tokens are no runs of bytes: spaces come from the decoder."""
    from tokenizers import Tokenizer as Raw
    from tokenizers import decoders, models, pre_tokenizers

    pieces = ["[UNK]", *"abcdeñ日", *(f"##{letter}" for letter in "abcdeñ日"), "abc", "##de"]
    vocab = {piece: index for index, piece in enumerate(pieces)}
    raw = Raw(models.WordPiece(vocab=vocab, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.decoder = decoders.WordPiece(cleanup=False)
    return _save(raw, directory)


def _save(raw: Any, directory: Path) -> Path:
    raw.save(str(directory / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return directory
