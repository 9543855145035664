"""Tiny configs of the architectures that run through transformers' own code, and of those refused.

As ``harness.TINY``: name → the transformers config class and what it says beyond ``SMALL``. Windows
are smaller than the prompts of the tests, so that they matter.
"""

from typing import Any

Kinds = dict[str, tuple[str, dict[str, Any]]]

_LATENT = {  # multi-head latent attention: queries and keys of 24, values of 10
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "q_lora_rank": 20,
    "kv_lora_rank": 12,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 10,
}
_ROUTED = {
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 20,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
}
_LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "short_factor": [1.0, 1.3, 1.7, 2.0],
    "long_factor": [1.5, 4.0, 9.0, 20.0],
    "original_max_position_embeddings": 128,
}
_PER_LAYER = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e5},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}
_GEMMA4 = {
    "num_hidden_layers": 4,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "head_dim": 16,
    "global_head_dim": 24,
    "sliding_window": 20,
    "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": 199,
}

BRIDGED: Kinds = {
    "apertus": ("ApertusConfig", {}),
    "arcee": ("ArceeConfig", {}),
    "bert-decoder": ("BertConfig", {"is_decoder": True}),
    "biogpt": ("BioGptConfig", {}),
    "cohere": ("CohereConfig", {"logit_scale": 0.3, "use_qk_norm": True}),
    "cohere2": ("Cohere2Config", {"sliding_window": 20, "num_hidden_layers": 4}),
    "deepseek-v2": (
        "DeepseekV2Config",
        {**_LATENT, **_ROUTED, "topk_method": "greedy", "n_group": 1, "topk_group": 1},
    ),
    "deepseek-v3": ("DeepseekV3Config", {**_LATENT, **_ROUTED, "n_group": 2, "topk_group": 1}),
    "ernie4.5": ("Ernie4_5Config", {"head_dim": 8}),
    "ernie4.5-moe": (
        "Ernie4_5_MoeConfig",
        {"moe_num_experts": 6, "moe_k": 2, "moe_intermediate_size": 20, "moe_layer_start_index": 1},
    ),
    "exaone4": ("Exaone4Config", {"sliding_window": 20, "num_hidden_layers": 4}),
    "gemma": ("GemmaConfig", {"head_dim": 16}),
    "gemma2": (
        "Gemma2Config",
        {
            "head_dim": 16,
            "sliding_window": 20,
            "query_pre_attn_scalar": 24,
            "attn_logit_softcapping": 3.0,
            "final_logit_softcapping": 5.0,
        },
    ),
    "gemma3": (
        "Gemma3TextConfig",
        {
            "head_dim": 16,
            "sliding_window": 20,
            "sliding_window_pattern": 3,
            "rope_parameters": _PER_LAYER,
        },
    ),
    "glm": ("GlmConfig", {"head_dim": 8, "pad_token_id": 0}),
    "glm4": ("Glm4Config", {"head_dim": 8, "pad_token_id": 0}),
    "gpt-neox": ("GPTNeoXConfig", {"rotary_pct": 0.5}),
    "gemma4": ("Gemma4TextConfig", {**_GEMMA4, "num_kv_shared_layers": 0}),
    "gpt-bigcode": ("GPTBigCodeConfig", {"n_embd": 48, "n_head": 4, "n_layer": 2}),
    "gpt2": ("GPT2Config", {"n_positions": 512, "scale_attn_by_inverse_layer_idx": True}),
    "granite": (
        "GraniteConfig",
        {
            "attention_multiplier": 0.2,
            "logits_scaling": 3.0,
            "residual_multiplier": 0.7,
            "embedding_multiplier": 2.0,
        },
    ),
    "granite-moe": ("GraniteMoeConfig", {"num_local_experts": 5, "num_experts_per_tok": 2}),
    "helium": ("HeliumConfig", {"head_dim": 8}),
    "llama-dynamic-rope": (
        "LlamaConfig",
        {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}},
    ),
    "llama-gelu": ("LlamaConfig", {"hidden_act": "gelu"}),
    "nemotron": ("NemotronConfig", {"head_dim": 8}),
    "olmo2": ("Olmo2Config", {}),
    "olmo3": ("Olmo3Config", {"sliding_window": 20, "num_hidden_layers": 4}),
    "olmoe": ("OlmoeConfig", {"num_experts": 6, "num_experts_per_tok": 2}),
    "opt": ("OPTConfig", {"ffn_dim": 80, "word_embed_proj_dim": 48}),
    "phi": ("PhiConfig", {"partial_rotary_factor": 0.5, "qk_layernorm": True}),
    "phi3": ("Phi3Config", {"sliding_window": 20, "pad_token_id": 0}),
    "phi3-longrope": (
        "Phi3Config",
        {"rope_parameters": _LONGROPE, "pad_token_id": 0, "original_max_position_embeddings": 128},
    ),
    "qwen2-moe": (
        "Qwen2MoeConfig",
        {
            "num_experts": 6,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 20,
            "shared_expert_intermediate_size": 30,
        },
    ),
    "seed-oss": ("SeedOssConfig", {"head_dim": 8}),
    "stablelm": ("StableLmConfig", {"qk_layernorm": True, "use_parallel_residual": True}),
    "starcoder2": ("Starcoder2Config", {"sliding_window": 20}),
}

REFUSED: Kinds = {
    "bert": ("BertConfig", {}),
    "bloom": ("BloomConfig", {"n_layer": 3, "n_head": 6}),
    "diffllama": ("DiffLlamaConfig", {}),
    "doge": ("DogeConfig", {}),
    "falcon": ("FalconConfig", {"alibi": False}),
    "gpt-neo": (
        "GPTNeoConfig",
        {"attention_types": [[["global", "local", "global"], 1]]},
    ),
    "gpt-oss": (
        "GptOssConfig",
        {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 8, "sliding_window": 20},
    ),
    "gptj": ("GPTJConfig", {"n_embd": 48, "n_head": 4, "n_layer": 2, "rotary_dim": 4}),
    "lfm2": ("Lfm2Config", {"full_attn_idxs": [1], "block_ff_dim": 48}),
    "llama4": (
        "Llama4TextConfig",
        {
            "attention_chunk_size": 16,
            "num_local_experts": 2,
            "head_dim": 8,
            "intermediate_size_mlp": 48,
        },
    ),
    "mamba": ("MambaConfig", {}),
    "mpt": ("MptConfig", {"d_model": 48, "n_heads": 4, "n_layers": 2}),
    "qwen3-next": (
        "Qwen3NextConfig",
        {"num_hidden_layers": 4, "num_experts": 4, "num_experts_per_tok": 2, "head_dim": 8},
    ),
    "roberta-decoder": ("RobertaConfig", {"is_decoder": True, "pad_token_id": 1}),
    "rwkv": ("RwkvConfig", {"attention_hidden_size": 48}),
    "xglm": ("XGLMConfig", {"num_layers": 2, "attention_heads": 4, "ffn_dim": 48, "d_model": 48}),
    "bart": ("BartConfig", {"decoder_layers": 2, "encoder_layers": 1, "d_model": 48}),
    "gemma3-embedding": (
        "Gemma3TextConfig",
        {"head_dim": 16, "sliding_window": 20, "use_bidirectional_attention": True},
    ),
    "gemma4-shared-kv": ("Gemma4TextConfig", {**_GEMMA4, "num_kv_shared_layers": 2}),
}
