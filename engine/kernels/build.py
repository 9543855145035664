"""Compiles `cpu.cpp` for the processor at hand and loads it into PyTorch, for ``--compile``.

One call of the C++ compiler, of ten seconds or so. The library is kept in our cache, under a name
that tells source, PyTorch, compiler and processor apart.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from filelock import FileLock

from ..errors import UserError
from ..models.places import cache_dir

TARGET = "native"  # a processor, by the compiler's name for it
_SOURCE = Path(__file__).with_name("cpu.cpp")
_SOURCES = (_SOURCE, *sorted(_SOURCE.parent.glob("*.h")))
_FLAGS = (
    "-std=c++20",
    "-O3",
    "-fno-strict-aliasing",  # pairs are read as halves, and the other way round
    "-fopenmp",
    "-fPIC",
    "-shared",
    "-w",
)
_NEEDED = ("__AVX2__", "__FMA__")
_TIMEOUT = 300  # seconds


def load(progress: Callable[[str, float | None], None]) -> None:
    """Make the operators ``torch.ops.minisgl_tui`` available.

    ``progress`` is told if that takes a while. UserError where they cannot be compiled, or the
    processor is none that they are written for.
    """
    _load_once(build(progress))


def build(progress: Callable[[str, float | None], None]) -> Path:
    """The library, compiled if that has not been done yet."""
    compiler = _compiler()
    facts = _facts(compiler)
    if not all(f"#define {name} " in facts for name in _NEEDED):
        raise UserError(
            "--compile is for x86 processors with AVX2, and this one is not; leave it out"
        )
    sources = (source.read_text() for source in _SOURCES)
    parts = (*sources, torch.__version__, *_FLAGS, facts)
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    library = cache_dir() / "kernels" / f"cpu-{key}.so"
    if not library.exists():
        try:
            library.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(library.with_suffix(".lock")):
                if not library.exists():  # another process may have been first
                    progress("compiling kernels for this processor, once", None)
                    _compile(compiler, library)
        except OSError as error:
            raise UserError(
                f"--compile cannot write {library} ({error}); free some space there, or set "
                "MINISGL_TUI_CACHE to another directory"
            ) from error
    return library


def _compiler() -> str:
    wanted = os.environ.get("CXX")
    for name in (wanted,) if wanted else ("c++", "g++", "clang++"):
        if found := shutil.which(name):
            return found
    tried = (
        f"CXX is {wanted!r}, which is not there" if wanted else "there is no c++, g++ or clang++"
    )
    raise UserError(f"--compile needs a C++ compiler, and {tried}; install g++, or leave it out")


def _facts(compiler: str) -> str:
    """What the compiler says about itself and this processor."""
    command = [compiler, f"-march={TARGET}", "-dM", "-E", "-x", "c++", os.devnull]
    return _run(command, "does not answer").stdout


def _compile(compiler: str, library: Path) -> None:
    """Written aside and then renamed, so that what has the name is whole."""
    torch_dir = Path(torch.__file__).parent
    include, lib = torch_dir / "include", torch_dir / "lib"
    with tempfile.TemporaryDirectory(dir=library.parent) as directory:
        made = Path(directory) / library.name
        command = [compiler, *_FLAGS, f"-march={TARGET}", f"-I{include}"]
        command += [str(_SOURCE), "-o", str(made)]
        command += [f"-L{lib}", "-ltorch_cpu", "-lc10"]
        _run(command, "could not compile the kernels")
        made.replace(library)


def _run(command: list[str], fault: str) -> subprocess.CompletedProcess[str]:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(f"--compile: {command[0]} took over {_TIMEOUT} s; leave it out") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["it says nothing"]
        said = next((line for line in lines if "error" in line), lines[-1])
        raise UserError(f"--compile: {command[0]} {fault}: {said}; set CXX to another compiler")
    return done


@cache
def _load_once(library: Path) -> None:
    try:
        torch.ops.load_library(str(library))
    except OSError as error:
        raise UserError(f"--compile: {library} cannot be loaded ({error}); delete it") from error
