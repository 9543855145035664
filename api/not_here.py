"""Fields that clients of OpenAI, vLLM and SGLang know and nothing here does: refused by name.

Values that ask for nothing are taken: SGLang's router and the benchmarks send them with everything.
"""

from typing import Any, NamedTuple


class NotHere(NamedTuple):
    """A field that nothing here does: the values that ask for nothing, and what else to do."""

    neutral: tuple[Any, ...] = ()
    instead: str = "leave it out"


_IN_LARK = NotHere((), "write it in Lark and send that as structured_outputs: {grammar: ...}")
_NO = NotHere((False,))

NOT_HERE: dict[str, NotHere] = {
    "allowed_token_ids": NotHere(),
    "audio": NotHere(),
    "bad_words": NotHere(([],)),
    "best_of": NotHere((1,)),
    "bootstrap_host": NotHere(),
    "bootstrap_port": NotHere(),
    "bootstrap_room": NotHere(),
    "chat_template": NotHere(),
    "custom_logit_processor": NotHere(),
    "custom_params": NotHere(({},)),
    "data_parallel_rank": NotHere((0,)),
    "disagg_prefill_dp_rank": NotHere((0,)),
    "documents": NotHere(([],)),
    "ebnf": _IN_LARK,
    "ec_transfer_params": NotHere(),
    "extra_key": NotHere((), "send cache_salt instead"),
    "function_call": NotHere(("none", "auto"), "send chat a tool_choice instead"),
    "functions": NotHere(([],), "send chat tools instead"),
    "grammar": _IN_LARK,
    "guided_decoding_backend": NotHere(),
    "guided_whitespace_pattern": NotHere(),
    "images_config": NotHere(({},)),
    "include_reasoning": NotHere((True,)),
    "input_embeds": NotHere(),
    "input_ids": NotHere((), "send completions a prompt of token ids"),
    "kv_transfer_params": NotHere(),
    "length_penalty": NotHere((1,)),
    "logits_processors": NotHere(([],)),
    "logprob_token_ids": NotHere(),
    "lora_path": NotHere(),
    "max_dynamic_patch": NotHere(),
    "media_io_kwargs": NotHere(({},)),
    "min_dynamic_patch": NotHere(),
    "mm_processor_kwargs": NotHere(({},)),
    "modalities": NotHere((["text"],)),
    "ngram_corpus_id": NotHere(),
    "no_stop_trim": _NO,
    "prediction": NotHere(),
    "prompt_embeds": NotHere(),
    "prompt_logprobs": NotHere(),
    "repetition_detection": NotHere(),
    "return_cached_tokens_details": _NO,
    "return_hidden_states": _NO,
    "return_meta_info": _NO,
    "return_prompt_text": _NO,
    "return_prompt_token_ids": NotHere((False,), "send return_token_ids instead"),
    "return_routed_experts": _NO,
    "return_token_offsets": _NO,
    "return_tokens_as_token_ids": NotHere((False,), "send return_token_ids instead"),
    "routed_dp_rank": NotHere((0,)),
    "routed_experts_prompt_start": NotHere((0,)),
    "routed_experts_start_len": NotHere((0,)),
    "separate_reasoning": NotHere((True,)),
    "session_params": NotHere(({},)),
    "spaces_between_special_tokens": NotHere((True,)),
    "stop_regex": NotHere(([],)),
    "stream_interval": NotHere((1,)),
    "stream_reasoning": NotHere((True,)),
    "structural_tag": _IN_LARK,
    "suffix": NotHere(("",)),
    "task": NotHere(),
    "thinking_token_budget": NotHere((-1,)),
    "tool_choice": NotHere(("none", "auto")),
    "tools": NotHere(([],)),
    "truncation_side": NotHere(("left",)),
    "use_audio_in_video": _NO,
    "use_beam_search": _NO,
    "vllm_xargs": NotHere(({},)),
    "watermarking": _NO,
    "web_search_options": NotHere(),
}
"""Of every endpoint that does not have them."""

COMPLETIONS = {
    "messages": NotHere((), "send prompt"),
    "top_logprobs": NotHere((0,), "send logprobs: N"),
}
"""Of completions besides: what chat has."""

CHAT = {
    "add_special_tokens": NotHere((False,), "leave it out: the template names its special tokens"),
    "echo": _NO,
    "prompt": NotHere((), "send messages"),
}
"""Of chat besides: what completions have, and vLLM's chat."""
