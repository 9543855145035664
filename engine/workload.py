"""Workload files: requests, when they arrive, and the engine settings that make them interesting.

A workload is TOML or JSON:

    title = "Three chats, one system prompt"
    system = "You are a helpful assistant."   # for every request that brings none of its own

    [engine]                                  # defaults; the command line wins
    max_batch_tokens = 64

    [[requests]]
    user = "What is a radix tree?"            # or prompt = "raw text", or tokens = [1, 2, 3]
    max_tokens = 48
    at_step = 0                               # arrives when this many steps were taken
    repeat = 1                                # "{i}" in the texts becomes 1, 2, …
    priority = 0                              # the lower, the sooner, for policies that look at it

The fields of `WorkloadRequest` and `EngineSettings` are all there is.

What a text becomes in token ids is the tokenizer's business (`tokenizer.py`).
"""

import tomllib
from pathlib import Path

import msgspec

from .errors import UserError
from .sampling import SamplingParams

MAX_BYTES = 64 << 20
MAX_REQUESTS = 100_000


class WorkloadRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One request, with exactly one of ``user`` (a chat), ``prompt`` (raw text), ``tokens``."""

    user: str | None = None
    prompt: str | None = None
    tokens: list[int] | None = None
    system: str | None = None
    at_step: int = 0
    repeat: int = 1
    priority: int = 0
    max_tokens: int = 64
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: dict[int, float] = {}
    min_tokens: int = 0
    seed: int | None = None
    ignore_eos: bool = False

    def params(self) -> SamplingParams:
        """The fields that sampling parameters have too."""
        shared = set(self.__struct_fields__) & set(SamplingParams.__struct_fields__)
        return SamplingParams(**{name: getattr(self, name) for name in shared})


class EngineSettings(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Engine settings a workload may ask for; None leaves the choice to flags and defaults."""

    block_size: int | None = None
    num_blocks: int | None = None
    max_batch_tokens: int | None = None
    max_running_requests: int | None = None
    max_model_len: int | None = None
    schedule_policy: str | None = None
    admission_policy: str | None = None
    preemption_policy: str | None = None
    eviction_policy: str | None = None

    def given(self) -> dict[str, int | str]:
        return {k: v for k, v in msgspec.structs.asdict(self).items() if v is not None}


class Workload(msgspec.Struct, forbid_unknown_fields=True):
    title: str = ""
    system: str | None = None
    engine: EngineSettings = msgspec.field(default_factory=EngineSettings)
    requests: list[WorkloadRequest] = []

    def expanded(self) -> list[WorkloadRequest]:
        """The requests one by one, in order of arrival, with ``system`` and ``{i}`` filled in."""
        single = [self._instance(r, i) for r in self.requests for i in range(1, r.repeat + 1)]
        return sorted(single, key=lambda r: r.at_step)

    def _instance(self, request: WorkloadRequest, i: int) -> WorkloadRequest:
        def fill(text: str | None) -> str | None:
            return text.replace("{i}", str(i)) if text else text

        system = fill(request.system if request.system is not None else self.system)
        return msgspec.structs.replace(
            request,
            user=fill(request.user),
            prompt=fill(request.prompt),
            system=system,
            repeat=1,
        )


def load_workload(path: Path) -> Workload:
    """Read a workload file. Raises `UserError` that says where the file is wrong."""
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"workload {path} is no regular file; give a TOML or JSON file")
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"workload {path} is larger than {MAX_BYTES >> 20} MiB; split it")
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"cannot read workload {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"workload {path} is not UTF-8: byte {error.start} is "
            f"0x{error.object[error.start]:02x}; save it as UTF-8"
        ) from error
    try:
        if path.suffix == ".json":
            workload = msgspec.json.decode(text, type=Workload)
        else:
            workload = msgspec.convert(tomllib.loads(text), Workload, str_keys=True)
    except (ValueError, msgspec.MsgspecError) as error:
        raise UserError(f"workload {path}: {error}") from error
    except RecursionError as error:
        raise UserError(f"workload {path} is nested too deeply to be a workload") from error
    _check(workload, path)
    return workload


def _check(workload: Workload, path: Path) -> None:
    if not workload.requests:
        raise UserError(f"workload {path} has no requests; add a [[requests]] entry with a `user`")
    for number, request in enumerate(workload.requests, start=1):
        where = f"workload {path}: request {number}"
        texts = [t for t in (request.user, request.prompt, request.tokens) if t is not None]
        if len(texts) != 1:
            raise UserError(f"{where} needs exactly one of user, prompt and tokens")
        if not texts[0]:
            raise UserError(f"{where} is empty; give it some text")
        if request.at_step < 0 or request.repeat < 1:
            raise UserError(f"{where}: at_step must be at least 0 and repeat at least 1")
        try:
            request.params()
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
    total = sum(request.repeat for request in workload.requests)
    if total > MAX_REQUESTS:
        raise UserError(f"workload {path} asks for {total} requests; the most is {MAX_REQUESTS}")
