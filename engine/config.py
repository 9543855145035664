"""The engine's settings: what the scheduler and the cache need to know, nothing about weights."""

import msgspec

from .errors import UserError

LARGEST = 2**31 - 1


class EngineConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Fixed for the life of an engine, and the header of every recording.

    ``block_size`` is in tokens; ``num_blocks`` counts usable KV blocks; ``max_batch_tokens`` is the
    budget of one step; ``max_model_len`` is the longest prompt + output in tokens.
    """

    block_size: int = 16
    num_blocks: int = 512
    max_batch_tokens: int = 512
    max_running_requests: int = 256
    max_model_len: int = 2048
    vocab_size: int = 0  # 0: not known, token ids are not checked
    eos_token_ids: tuple[int, ...] = ()
    schedule_policy: str = "fcfs"
    admission_policy: str = "optimistic"
    preemption_policy: str = "newest"
    eviction_policy: str = "lru"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in (
            "block_size",
            "num_blocks",
            "max_batch_tokens",
            "max_running_requests",
            "max_model_len",
        ):
            value = getattr(self, name)
            flag = "--" + name.replace("_", "-")
            if value < 1:
                raise UserError(f"{flag} is {value}; it must be at least 1")
            if value > LARGEST:
                raise UserError(f"{flag} is {value}; it must be at most {LARGEST}")

    @property
    def capacity(self) -> int:
        """Tokens the KV pool can hold."""
        return self.block_size * self.num_blocks

    def blocks_for(self, tokens: int) -> int:
        """Blocks needed to hold the KV of ``tokens`` tokens."""
        return -(-tokens // self.block_size)
