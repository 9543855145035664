"""Thousands of short requests later the server is as it was: nothing kept, nothing open."""

import asyncio
import os
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from minisgl_tui.api.simulated import SimulatedServer, byte_tokenizer
from minisgl_tui.engine.config import EngineConfig
from minisgl_tui.engine.engine import Engine
from minisgl_tui.engine.plan import Row
from minisgl_tui.engine.sampling import SamplingParams
from minisgl_tui.engine.simulate import SimulatedRunner
from prometheus_client.parser import text_string_to_metric_families

from .conftest import Live, live, served, tiny_llm
from .soak import grown, kept, soak
from .waiting import until


@pytest.fixture(autouse=True)
def a_short_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept of ended requests, for the eye, is full soon."""
    monkeypatch.setattr("minisgl_tui.engine.state.RETAIN_FINISHED", 20)


def oracle(directory: Path) -> Any:
    """An engine on the oracle, in a pool that is too small for all its clients, where one step in
    hundreds fails."""
    rng = random.Random(0)

    def next_token(row: Row) -> int:
        if rng.random() < 0.0005:
            raise RuntimeError("a step that fails")
        return rng.randrange(65, 91) if rng.random() < 0.8 else rng.randrange(256)

    config = EngineConfig(block_size=4, num_blocks=96, max_batch_tokens=64, vocab_size=256)
    runner = SimulatedRunner(config.num_blocks, config.block_size, next_token)
    return SimpleNamespace(
        engine=Engine(config, runner, runner.clock),
        tokenizer=byte_tokenizer(directory),
        default_params=SamplingParams(),
    )


async def assert_flat(server: Live, first: int, more: int, slack: int) -> None:
    roots = (server.server, server.serving, server.serving.thread, server.engine)

    async def settled() -> None:
        await until(lambda: not server.serving.thread.live)
        await until(lambda: not server.server.server_state.connections)
        server.assert_nothing_left()

    await soak(server.url, range(first))
    await settled()
    before = kept(*roots)
    ended = await soak(server.url, range(first, first + more))
    await settled()
    assert grown(before, kept(*roots), slack) == {}
    assert min(ended[kind] for kind in ("plain", "streamed", "leaves", "bad")) > more / 40
    thread = server.serving.thread
    assert not thread._routes and not thread._generations and not thread._questions
    assert not server.server.server_state.tasks


async def test_1500_short_requests_leave_nothing_behind(tmp_path: Path):
    with live(oracle(tmp_path)) as server:
        await assert_flat(server, 400, 1100, slack=300)
        stats = server.serving.thread.state.stats
        assert stats.preemptions and stats.failed_steps and stats.evicted_blocks


async def test_short_requests_leave_nothing_behind_in_the_runner(tiny_model: Path):
    llm = tiny_llm(tiny_model, num_blocks=128)
    with live(llm) as server:
        await assert_flat(server, 100, 200, slack=150)
        assert grown(kept(), kept(llm.runner), 0)  # it was looked at


# --- in a process of its own, minutes long: `pytest -m long -s tests/api/test_soak.py` -----------


async def measured(pid: int, url: str, visits: range) -> tuple[float, int]:
    """Megabytes resident and files open once ``visits`` are over; every block is free or cached."""
    ended = await soak(url, visits)
    async with httpx2.AsyncClient(base_url=url) as http:
        while values := await pool(http):
            if not values["num_requests_running"] + values["num_requests_waiting"]:
                break
            await asyncio.sleep(0.1)
    await asyncio.sleep(0.5)  # for closed connections to be gone
    assert values["kv_blocks_free"] + values["kv_blocks_evictable"] == values["kv_blocks_total"]
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    megabytes, files = pages * os.sysconf("SC_PAGE_SIZE") / 1e6, open_files(pid)
    print(f"after {visits.stop}: {megabytes:.1f} MB resident, {files} files open; {dict(ended)}")
    return megabytes, files


async def pool(http: httpx2.AsyncClient) -> dict[str, float]:
    families = text_string_to_metric_families((await http.get("/metrics")).text)
    samples = (sample for family in families for sample in family.samples)
    return {s.name.removeprefix("minisgl:"): s.value for s in samples if "le" not in s.labels}


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
async def test_10000_requests_leave_memory_and_files_as_they_were():
    with SimulatedServer(0.0, num_blocks=128) as server:
        parts = [range(first, first + 2000) for first in range(0, 10_000, 2000)]
        found = [await measured(server.pid, server.url, part) for part in parts]
    # The heap settles for long; what kept 1 kB of each visit would be over this.
    assert found[-1][0] < found[0][0] * 1.01 + 7
    assert found[-1][1] <= found[0][1]


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
async def test_500_requests_to_the_default_model_leave_memory_and_files_as_they_were():
    """The first two hundred fill oneDNN's cache of kernels (`engine/models/linear.py`)."""
    with served("smollm2-135m", "--num-blocks", "256") as server:
        parts = [range(first, first + 100) for first in range(0, 500, 100)]
        found = [await measured(server.process.pid, server.url, part) for part in parts]
    assert found[-1][0] < found[1][0] * 1.03
    assert found[-1][1] <= found[0][1]
