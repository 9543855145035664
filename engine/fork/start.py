"""The engine at the fork: made from the picture there, in a pool of the size that is wanted."""

from array import array

from msgspec.structs import replace

from ..blocks import BlockState
from ..config import EngineConfig
from ..engine import Engine
from ..request import Status
from ..snapshot import NOBODY
from ..state import EngineState
from ..wording import agrees, plural
from .edits import Editor
from .reading import Recorded
from .replay import RecordedRunner


def state_for(
    recorded: Recorded, config: EngineConfig, editor: Editor
) -> tuple[EngineState, list[str]]:
    """The picture that the fork begins with, under ``config``, and what had to be done for it."""
    state = EngineState.restore(recorded.state.snapshot())
    state.config = replace(config, num_blocks=state.config.num_blocks)
    told = _make_room(state, recorded, config.num_blocks)
    _resize(state, config.num_blocks)
    state.config = config
    for id in state.waiting:
        _edit(state, id, editor)
    return state, told


def engine_for(recorded: Recorded, state: EngineState, runner: RecordedRunner) -> Engine:
    """An engine that stands where ``state`` is the picture of; it numbers requests as recorded."""
    arrivals = (answer for answer in recorded.answers if answer not in recorded.state.requests)
    runner.clock.now = state.now
    engine = Engine.resume(state, runner, runner.clock, recorded.at, next(arrivals, 0))
    if state.config.admission_policy == recorded.state.config.admission_policy and recorded.ratio:
        engine.scheduler.ratio = recorded.ratio
    runner.engine = engine
    return engine


def _make_room(state: EngineState, recorded: Recorded, num_blocks: int) -> list[str]:
    """Free what is beyond ``num_blocks`` blocks the way an engine does."""
    preempted, evicted = state.stats.preemptions, state.stats.evicted_blocks
    beyond = state.config.num_blocks - num_blocks
    if beyond <= state.free:
        return []
    engine = engine_for(recorded, state, RecordedRunner(recorded))
    engine.log.listen(state.apply)
    engine.scheduler.give_back(beyond)
    engine.log.close(state.now)
    state.notes = []  # of blocks that there will not be
    victims = state.stats.preemptions - preempted
    requests = f"{plural(victims, 'request')} {agrees(victims, 'was', 'were')}"
    blocks = plural(state.stats.evicted_blocks - evicted, "cached block")
    return [
        f"to fit into {num_blocks} blocks, {requests} preempted and {blocks} evicted at the fork"
    ]


def _edit(state: EngineState, id: int, editor: Editor) -> None:
    """Edit the prompt of a request that nothing has been computed of."""
    request = state.requests[id]
    if request.status is not Status.WAITING:
        return
    prompt = editor.edit(request.tokens, [id])
    if prompt != request.tokens:
        state.requests[id] = replace(request, tokens=prompt[:], prompt_len=len(prompt))
        if live := state.stats.live.get(id):
            live.prompt_len = len(prompt)


def _resize(state: EngineState, num_blocks: int) -> None:
    """Give the pool that size. Blocks beyond its end get the lowest free numbers."""
    now = len(state.block_state)
    used = [b for b in range(num_blocks, now) if state.block_state[b] != BlockState.FREE]
    free = (b for b in range(num_blocks) if b >= now or state.block_state[b] == BlockState.FREE)
    moved = dict(zip(used, free, strict=False))
    more = max(0, num_blocks - now)
    state.block_state += bytes(more)
    state.block_owner += array("i", [NOBODY]) * more
    for old, new in moved.items():
        state.block_state[new] = state.block_state[old]
        state.block_owner[new] = state.block_owner[old]
    del state.block_state[num_blocks:], state.block_owner[num_blocks:]
    if moved:
        # Copies: those here may be shared with other states.
        state.requests = {id: request.copy() for id, request in state.requests.items()}
        state.nodes = {id: node.copy() for id, node in state.nodes.items()}
        tables = [request.block_table for request in state.requests.values()]
        for table in (*tables, *(node.blocks for node in state.nodes.values())):
            table[:] = [moved.get(block, block) for block in table]
    state.free += num_blocks - now
    stats = state.stats
    stats.num_blocks, stats.free_blocks = num_blocks, state.free
    stats.evictable_blocks = state.evictable
