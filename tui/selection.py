"""What is selected, and everything linked to it: blocks, tree nodes and requests at once."""

from typing import Literal, NamedTuple

from ..engine.blocks import BlockState
from ..engine.events import Refused
from ..engine.snapshot import NodeState
from ..engine.state import EngineState
from ..engine.wording import plural
from . import explain
from .text import visible

Kind = Literal["request", "node", "block"]


class Target(NamedTuple):
    """Something a cursor can stand on."""

    kind: Kind
    id: int


class Links(NamedTuple):
    """Ids that light up together, and the line that says so."""

    requests: frozenset[int] = frozenset()
    nodes: frozenset[int] = frozenset()
    blocks: frozenset[int] = frozenset()
    words: str = ""

    def has(self, target: Target) -> bool:
        if target.kind == "request":
            return target.id in self.requests
        return target.id in (self.nodes if target.kind == "node" else self.blocks)


NOTHING = Links()


def resolve(
    state: EngineState, target: Target | None, came: bool = True, refused: Refused | None = None
) -> Links:
    """Everything in ``state`` that belongs to ``target`` now; ``came``: it was there once;
    ``refused``: how it was, if it is a request that was."""
    if target is None:
        return NOTHING
    if target.kind == "request":
        return _of_request(state, target.id, came, refused)
    if target.kind == "node":
        return _of_node(state, target.id, came)
    return _of_block(state, target.id)


def node_holders(state: EngineState, node: NodeState) -> list[int]:
    """The requests that hold ``node``, found without searching any block table."""
    if not node.blocks or not node.refs:
        return []
    at = node.start // state.config.block_size
    first = node.blocks[0]
    tables = ((r, state.requests[r].block_table) for r in state.running)
    return [r for r, table in tables if at < len(table) and table[at] == first]


def called(target: Target) -> str:
    """
    >>> called(Target("request", 4)), called(Target("node", 3))
    ('#4', 'node 3')
    """
    return f"#{target.id}" if target.kind == "request" else f"{target.kind} {target.id}"


def names(requests: list[int], limit: int = 6) -> str:
    """
    >>> names([1, 2]), names([])
    ('#1 #2', 'nobody')
    """
    if not requests:
        return "nobody"
    rest = len(requests) - limit
    return " ".join(f"#{r}" for r in requests[:limit]) + (f" and {rest} more" if rest > 0 else "")


def _of_request(state: EngineState, id: int, came: bool, refused: Refused | None) -> Links:
    request = state.requests.get(id)
    if refused:
        return Links(frozenset((id,)), words=explain.refused(refused).removesuffix("."))
    if request is None:
        gone = "ended long ago: its tokens are no longer kept"
        return Links(frozenset((id,)), words=f"#{id} {gone if came else 'has not come yet'}")
    nodes = state.nodes_of(request)
    blocks = plural(len(request.block_table), "block")
    words = f"#{id} holds {blocks}, along {plural(len(nodes), 'tree node')}"
    if not request.block_table:
        words = f"#{id} holds no blocks" + ("" if request.live else ": it has finished")
    if request.name:
        words += f" · {visible(request.name)}"
    return Links(
        frozenset((id,)),
        frozenset(node.id for node in nodes),
        frozenset(request.block_table),
        words,
    )


def _of_node(state: EngineState, id: int, came: bool) -> Links:
    node = state.nodes.get(id)
    if node is None:
        return Links(words=f"node {id} {'is gone: it was evicted' if came else 'is not there yet'}")
    holders = node_holders(state, node)
    words = f"node {id}: {plural(len(node.blocks), 'block')}, held by {names(holders)}"
    return Links(frozenset(holders), frozenset((id,)), frozenset(node.blocks), words)


def _of_block(state: EngineState, id: int) -> Links:
    block = frozenset((id,))
    kind = state.block_state[id]
    owner = state.block_owner[id]
    if kind == BlockState.CACHED:
        holders = node_holders(state, state.nodes[owner])
        words = f"block {id}: in node {owner}, held by {names(holders)}"
        return Links(frozenset(holders), frozenset((owner,)), block, words)
    if kind == BlockState.PRIVATE:
        return Links(frozenset((owner,)), frozenset(), block, f"block {id}: #{owner}'s own")
    return Links(blocks=block, words=f"block {id}: free")
