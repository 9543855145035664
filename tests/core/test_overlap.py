"""Steps that a runner begins with before they are scheduled. The scheduler knows nothing of it, so
all that can go wrong is what is foreseen, and what is computed in vain."""

from collections.abc import Sequence

import pytest
from helpers import Bench
from minisgl_tui.engine.blocks import BlockPool
from minisgl_tui.engine.engine import Engine
from minisgl_tui.engine.plan import Foreseen, Plan, Row, StepOutput
from minisgl_tui.engine.simulate import SimulatedRunner
from test_oracle import FlakyRunner, Load


class Eager(FlakyRunner):
    """Writes what is foreseen at once, and does not write it again when it comes true."""

    overlaps = True
    ahead = came_true = 0
    _foreseen: Sequence[Foreseen] = ()

    def begin(self, decodes: Sequence[Foreseen]) -> None:
        self._foreseen = decodes
        self.ahead += len(decodes)
        for one in decodes:
            block = one.table[one.start // self.block_size]
            slot = block * self.block_size + one.start % self.block_size
            self.kv[slot] = one.request.tokens[one.start]

    def execute(self, plan: Plan) -> StepOutput:
        try:
            return super().execute(plan)
        finally:
            self._foreseen = ()

    def _write(self, row: Row) -> None:
        if any(one.comes_true_in(row) for one in self._foreseen):
            self.came_true += 1
        else:
            super()._write(row)


@pytest.mark.parametrize("first", range(0, 600, 100))
def test_random_loads_read_right_and_are_what_they_are_without(first: int) -> None:
    ahead = came_true = 0
    for seed in range(first, first + 100):
        eager, plain = Load(seed, Eager), Load(seed)
        eager.run()
        plain.run()
        assert [r.events for r in eager.records] == [r.events for r in plain.records]
        assert isinstance(eager.runner, Eager)
        ahead += eager.runner.ahead
        came_true += eager.runner.came_true
    # Most comes true, though requests come and are aborted all the time; not all, or the test would
    # not see what is computed in vain.
    assert 0.5 * ahead < came_true < ahead


class Exact(Eager):
    """Aborts nothing, and takes no step that is not what was foreseen."""

    def execute(self, plan: Plan) -> StepOutput:
        if self._foreseen:
            pairs = zip(self._foreseen, plan.rows, strict=True)
            assert all(one.comes_true_in(row) for one, row in pairs)
        return SimulatedRunner.execute(self, plan)


def test_all_of_it_comes_true_while_nobody_comes_or_is_aborted() -> None:
    """Requests that end in different steps, and give blocks back that the others take, too."""
    bench = Bench(num_blocks=64, block_size=4)
    runner = bench.engine.runner = Exact(bench.config, 0, 50, failures=0)
    runner.engine = bench.engine
    for length in range(3, 12):
        bench.submit(list(range(length)), max_tokens=2 * length)
    bench.finish()
    # All tokens but the first of each, which comes of its prompt.
    decodes = sum(2 * length - 1 for length in range(3, 12))
    assert runner.came_true == runner.ahead == decodes


def test_nothing_is_foreseen_beside_prompts_and_without_free_blocks() -> None:
    bench = Bench(num_blocks=4, block_size=4, max_batch_tokens=8)
    first = bench.submit([1, 2, 3], max_tokens=12)
    bench.step()
    (foreseen,) = bench.engine.scheduler.foresee()
    assert (foreseen.request, foreseen.start, foreseen.table) == (first, 3, first.block_table)
    bench.submit(list(range(20, 29)), max_tokens=2)
    assert bench.engine.scheduler.foresee() == []  # one waits
    bench.step()
    assert bench.engine.scheduler.foresee() == []  # one is in the middle of its prompt
    bench.finish()

    full = Bench(num_blocks=2, block_size=4, max_batch_tokens=8)
    full.submit([1, 2, 3, 4, 5, 6, 7], max_tokens=2)
    full.step()
    assert len(full.engine.scheduler.foresee()) == 1
    half = Bench(num_blocks=2, block_size=4, max_batch_tokens=8)
    half.submit([1, 2, 3, 4], max_tokens=2)
    half.step()
    assert half.engine.scheduler.foresee()[0].table == [0, 1]
    half.engine.scheduler.cache.pool.take(1)
    assert half.engine.scheduler.foresee() == []


def test_the_next_free_blocks_are_those_that_are_taken() -> None:
    pool = BlockPool(5)
    pool.give_back(pool.take(3)[1:])
    for count in (0, 1, 3):
        assert pool.next_free(count) == pool.take(count)
    assert pool.next_free(9) == []


def test_an_engine_asks_only_those_runners_that_overlap() -> None:
    bench = Bench()
    asked: list[object] = []
    bench.runner.begin = asked.append  # pyright: ignore[reportAttributeAccessIssue]
    bench.submit([1, 2, 3])
    bench.finish()
    assert not asked and isinstance(bench.engine, Engine)
