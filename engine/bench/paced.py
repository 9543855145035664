"""A model that computes nothing and takes a given time for it: what is left is everybody else's.

With it the server is compared to the bare engine (`api.overhead`), and this is the bare engine's
side of that. A step that waits leaves the interpreter to other threads, as a forward pass does.
"""

import random
from collections import deque
from time import perf_counter, process_time, sleep

import msgspec

from ..config import EngineConfig
from ..engine import Engine
from ..plan import Plan, Runner, StepOutput
from ..sampling import SamplingParams

VOCABULARY = 256  # tokens are bytes; those it gives are letters
LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
BLOCK_SIZE = 16
MOST_STREAMS, CONTEXT, NUM_BLOCKS = 4096, 4096, 1 << 17


class PacedRunner(Runner):
    """A step takes ``seconds`` at the least, and gives everybody the letter that is next: step 1
    gives ``B``. ``ends`` has when each of the latest steps was done."""

    def __init__(self, seconds: float) -> None:
        self.ends: deque[tuple[int, float]] = deque(maxlen=1 << 12)
        self._seconds = seconds

    def execute(self, plan: Plan) -> StepOutput:
        due = perf_counter() + self._seconds
        tokens = [LETTERS[plan.step % len(LETTERS)]] * sum(row.samples for row in plan.rows)
        if (left := due - perf_counter()) > 0:
            sleep(left)
        self.ends.append((plan.step, perf_counter()))
        return StepOutput(tokens)


def paced_engine(runner: PacedRunner, num_blocks: int = NUM_BLOCKS) -> Engine:
    """An engine that runs up to `MOST_STREAMS` requests at once."""
    config = EngineConfig(
        block_size=BLOCK_SIZE,
        num_blocks=num_blocks,
        max_batch_tokens=1 << 16,
        max_running_requests=MOST_STREAMS,
        max_model_len=CONTEXT,
        vocab_size=VOCABULARY,
    )
    return Engine(config, runner)


def prompts(count: int, length: int = 32) -> list[list[int]]:
    """``count`` prompts that share nothing."""
    rng = random.Random()
    return [rng.choices(LETTERS, k=length) for _ in range(count)]


class Bare(msgspec.Struct):
    """Seconds: of one step in which every stream gets a token, and of processor time a token."""

    step: float
    cpu: float


def time_bare(seconds: float, streams: int, tokens: int) -> Bare:
    """Give ``streams`` requests ``tokens`` tokens each, by the engine alone."""
    engine = paced_engine(PacedRunner(seconds))
    params = SamplingParams(max_tokens=tokens, ignore_eos=True)
    for prompt in prompts(streams):
        engine.submit(prompt, params)
    engine.step()
    began, cpu = perf_counter(), process_time()
    while engine.has_work():
        engine.step()
    steps = tokens - 1
    return Bare((perf_counter() - began) / steps, (process_time() - cpu) / steps / streams)
