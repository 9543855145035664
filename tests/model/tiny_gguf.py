"""Tiny GGUF files with a tokenizer, and the transformers models they were made from."""

from pathlib import Path
from typing import Any

import torch

LAYERS, HEADS, KV_HEADS, SIZE, INNER = 2, 4, 2, 32, 64


def make_gguf(path: Path, architecture: str = "llama") -> Any:
    """Write a random two-layer model to ``path``; returns it as a bfloat16-rounded model.

    ``architecture`` is ``llama``, which our decoder computes, or ``starcoder2``, which it does not.
    """
    import transformers

    characters = [*map(chr, [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)])]
    characters += [chr(0x100 + index) for index in range(256 - len(characters))]
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *characters, "he", "ll"]
    kinds = {"llama": transformers.LlamaConfig, "starcoder2": transformers.Starcoder2Config}
    config = kinds[architecture](
        vocab_size=len(tokens),
        hidden_size=SIZE,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        initializer_range=0.2,
    )
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for parameter in model.parameters():  # not `model.to`, which would round the rotary table too
        parameter.data = parameter.data.bfloat16().float()
    _write(path, model, tokens, architecture)
    return model.eval()


def _write(path: Path, model: Any, tokens: list[str], architecture: str) -> None:
    from gguf import GGUFWriter

    writer = GGUFWriter(path, architecture)
    writer.add_name("tiny")
    writer.add_block_count(LAYERS)
    writer.add_context_length(128)
    writer.add_embedding_length(SIZE)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(SIZE // HEADS)
    writer.add_rope_freq_base(10000.0)
    if architecture == "llama":
        writer.add_layer_norm_rms_eps(1e-6)
    else:
        writer.add_layer_norm_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3] + [1] * (len(tokens) - 3))
    writer.add_token_merges(["h e", "l l"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    for name, tensor in model.state_dict().items():
        if name != "lm_head.weight":
            tensor = _gguf_layout(name, tensor) if architecture == "llama" else tensor
            writer.add_tensor(_gguf_name(name), tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _gguf_name(name: str) -> str:
    for ours, theirs in {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "model.layers.": "blk.",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "mlp.c_fc": "ffn_up",
        "mlp.c_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }.items():
        name = name.replace(ours, theirs)
    return name


def _gguf_layout(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """GGUF interleaves the two halves that the rotary embedding pairs up."""
    heads = HEADS if "q_proj" in name else KV_HEADS if "k_proj" in name else 0
    if not heads:
        return tensor
    halves = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, -1)
    return halves.swapaxes(1, 2).reshape(tensor.shape).contiguous()
