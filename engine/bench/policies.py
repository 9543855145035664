"""What a policy does to a load: the same requests under two sets of policies, in virtual time.

The load is what policies are for: groups of requests that share a long head, arriving in random
order, answers of random length, priorities, and a pool that holds a part of it. Nothing is computed
and no time passes, so the figures repeat exactly on any machine.
"""

import random

import msgspec

from ..config import EngineConfig
from ..engine import Engine
from ..sampling import SamplingParams
from ..simulate import SimulatedRunner, random_tokens
from ..state import EngineState

GROUPS, PER_GROUP = 24, 16
HEAD, TAIL = 256, 32  # tokens of a prompt, shared and own
PER_STEP = 2  # arrivals

FIGURES = (
    "steps",
    "prefill_tokens",
    "hit_rate",
    "rehit_tokens",
    "preemptions",
    "evicted_blocks_capacity",
    "queue_mean",
    "queue_max",
    "ttft_mean",
    "ttft_p99",
    "itl_p99",
    "e2e_mean",
)


def policy_effect(**policies: str) -> dict[str, float]:
    """The figures of the load under ``policies`` (as `EngineConfig` names them); times are virtual
    seconds at 5 ms a step and 0.1 ms a token."""
    config = EngineConfig(
        block_size=16, num_blocks=256, max_batch_tokens=512, max_running_requests=48
    )
    config = msgspec.structs.replace(config, **policies)
    runner = SimulatedRunner(config.num_blocks, config.block_size, random_tokens(0, 1 << 16))
    engine = Engine(config, runner, runner.clock)
    state = EngineState(config)
    engine.log.listen(state.apply)
    arrivals = _load()
    while arrivals or engine.has_work():
        for prompt, params, priority in arrivals[:PER_STEP]:
            engine.submit(prompt, params, priority=priority)
        del arrivals[:PER_STEP]
        engine.step()
    summary = state.stats.summary()
    return {name: summary.get(name, 0) for name in FIGURES}


def _load() -> list[tuple[list[int], SamplingParams, int]]:
    rng = random.Random(0)
    load = []
    for group in range(GROUPS):
        head = [rng.randrange(1 << 16) for _ in range(HEAD)]
        for _ in range(PER_GROUP):
            tail = [rng.randrange(1 << 16) for _ in range(rng.randint(1, TAIL))]
            params = SamplingParams(max_tokens=rng.randint(4, 128))
            load.append(([*head, *tail], params, group % 3))
    rng.shuffle(load)
    return load
