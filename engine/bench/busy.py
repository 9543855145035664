"""An engine that is never out of work, for whoever wants a long run and no model."""

import random

from ..config import EngineConfig
from ..engine import Engine
from ..plan import Plan, Runner, StepOutput
from ..sampling import SamplingParams
from ..simulate import VirtualClock
from ..state import EngineState


class Busy(Runner):
    """Always ``running`` requests of some hundred tokens, half of them behind one of a few system
    prompts; its steps compute nothing and take a thirtieth of a second. ``state`` follows."""

    def __init__(self, running: int, blocks: int = 4096) -> None:
        self.config = EngineConfig(num_blocks=blocks, max_batch_tokens=512, max_model_len=4096)
        self.rng = random.Random(7)
        self.clock = VirtualClock()
        self.engine = Engine(self.config, self, self.clock)
        self.state = EngineState(self.config)
        self.engine.log.listen(self.state.apply)
        self.running = running
        self.systems = [self.ids(200) for _ in range(4)]

    def ids(self, count: int) -> list[int]:
        return [self.rng.randrange(50_000) for _ in range(count)]

    def execute(self, plan: Plan) -> StepOutput:
        self.clock.advance(1 / 30)
        tokens = [self.rng.randrange(50_000) for row in plan.rows if row.samples]
        return StepOutput(tokens, timings={"forward": 1 / 30})

    def steps(self, count: int) -> None:
        """Take so many; requests come as others end, and one in a hundred steps one is aborted."""
        rng = self.rng
        for _ in range(count):
            while len(self.engine.requests) < self.running:
                prompt = (rng.choice(self.systems) if rng.random() < 0.5 else []) + self.ids(
                    rng.randint(20, 300)
                )
                self.engine.submit(prompt, SamplingParams(max_tokens=rng.randint(20, 400)))
            if rng.random() < 0.01:
                self.engine.abort(rng.choice(list(self.engine.requests)))
            self.engine.step()
