"""A peer engine that computes nothing: it speaks the pipe's language and spins while it waits."""

import stat
import sys
import time
from pathlib import Path

from minisgl_tui.engine.bench.peer import Peer, PeerChoice
from minisgl_tui.engine.bench.peers import wire
from minisgl_tui.engine.bench.workloads import BenchWorkload

FAKE = """
import os, subprocess, sys, threading, time
sys.path.insert(0, {peers!r})
import wire

def load(job):
    print("chatter on stdout")
    os.system("echo and of a child")
    threading.Thread(target=lambda: [None for _ in iter(int, 1)], daemon=True).start()  # spins
    child = subprocess.Popen(["sleep", "1000"])
    with open({pids!r}, "w") as file:
        print(os.getpid(), child.pid, file=file)

    def run(requests):
        {run}

    return "fake 1.0 of " + job["dtype"], run

wire.main(load)
"""
HONEST = "return 0.5, [one['params']['max_tokens'] for one in requests]"


class Fake:
    """A program that behaves like a python in whose environment the engine is ``run``."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.pid_file = folder, folder / "pids"

    def python(self, run: str = HONEST, before: str = "") -> str:
        script = self.folder / "fake.py"
        peers = str(Path(wire.__file__).parent)
        script.write_text(before + FAKE.format(peers=peers, pids=str(self.pid_file), run=run))
        program = self.folder / "python"
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "$2"\n')
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        return str(program)

    def start(
        self, load: BenchWorkload, run: str = HONEST, before: str = "", name: str = "vllm"
    ) -> Peer:
        choice = PeerChoice.parse(f"{name}={self.python(run, before)}")
        return Peer(choice, self.folder, [load], dtype="float32", threads=1, max_model_len=64)

    @property
    def pids(self) -> list[int]:
        return [int(word) for word in self.pid_file.read_text().split()]


def state(pid: int) -> str:
    """``R``, ``S``, ``T`` for stopped, …; empty once it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def is_running(pid: int) -> bool:
    for _ in range(100):
        if state(pid) in ("", "Z"):
            return False
        time.sleep(0.01)
    return True
