"""Large pools and large trees: cells of many blocks, and a tree that is folded up."""

import random

import pytest
from minisgl_tui.engine.config import EngineConfig
from minisgl_tui.engine.sampling import SamplingParams
from minisgl_tui.engine.snapshot import NodeState
from minisgl_tui.engine.state import ROOT, EngineState
from minisgl_tui.tui.cells import FREE, HELD, PRIVATE, SHARED, STYLES, CellMap
from minisgl_tui.tui.outline import CHILDREN, Outline
from minisgl_tui.tui.selection import Target
from minisgl_tui.tui.store import Store
from minisgl_tui.tui.text import plain
from minisgl_tui.tui.views.blocks import LEGEND, BlocksView
from minisgl_tui.tui.views.tree import TreeView
from minisgl_tui.tui.weights import Weights
from minisgl_tui.tui.zoom import SHADES, SIZES, Zoomed

from .test_panes import opened, shown
from .test_past import config_of, random_run
from .toy import INFO, make_session

# --- blocks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES[1:])
@pytest.mark.parametrize("state", [None, FREE, PRIVATE, SHARED])
def test_a_map_from_far_equals_one_that_is_made_anew(size: int, state: int | None) -> None:
    picture, cells = EngineState(config_of(1)), CellMap(12)

    def follow(record: object) -> None:
        cells.apply(picture, record)  # pyright: ignore[reportArgumentType]
        found, anew = cells.zoomed(size, state), Zoomed(cells.codes, size, state)
        anew.refresh()
        assert (found.codes, found.shades, found.lit) == (anew.codes, anew.shades, anew.lit)

    random_run(1, follow)


def test_a_cell_shows_what_most_of_its_blocks_are_and_how_many_are_in_use() -> None:
    blocks = bytearray(
        [FREE] * 6 + [HELD] * 2 + [HELD] * 5 + [PRIVATE] * 3 + [FREE] * 8 + [PRIVATE]
    )
    cells = Zoomed(blocks, 8, None)
    cells.refresh()
    assert list(cells.codes) == [FREE, HELD, FREE, PRIVATE]
    assert list(cells.shades) == [1, SHADES, 0, SHADES]
    picked = Zoomed(blocks, 8, PRIVATE)
    picked.refresh()
    assert list(picked.lit) == [0, 1, 0, 1]
    assert picked.codes[1] == PRIVATE and picked.shades[1] == 2


def test_the_cursor_stays_on_its_block_when_one_looks_from_farther_away() -> None:
    session, store = opened()
    for _ in range(4):
        session.engine.step()
    view = BlocksView()
    view.cursor = 21
    assert "block 21" in shown(view, store)
    view.cursor = view.scale(view.cursor, -1)
    assert view.size == 2 and view.cursor == 10
    text = shown(view, store)
    assert "blocks 20–21:" in text and "24 blocks of 4 tokens · 2 a cell" in view.subtitle
    assert view.find(Target("block", 21)) == 10
    assert f"free {store.cells.counts[FREE]}" in text  # the legend counts blocks, not cells
    assert view.items == 12
    view.cursor = view.scale(view.cursor, 1)
    assert view.size == 1 and view.cursor == 20
    for _ in range(9):
        view.scale(0, -1)
    assert view.size == 128 and view.items == 1
    shown(view, store)


def test_a_state_can_be_picked_out_and_after_the_last_all_stand_out_again() -> None:
    session, store = opened()
    for _ in range(4):
        session.engine.step()
    view = BlocksView()
    for state, _ in LEGEND:
        view.pick_out()
        shown(view, store)
        styles = {s for i in range(view.body_lines) for t, s, _ in view.grounds(i, -1) if t.strip()}
        kept = {STYLES[c] for c in store.cells.codes if min(c, SHARED) == state}
        assert styles == kept | {"faint"}, state
    view.pick_out()
    shown(view, store)
    styles = {s for i in range(view.body_lines) for t, s, _ in view.grounds(i, -1) if t.strip()}
    assert {"private", "shared"} <= styles


def test_a_pool_of_many_blocks_is_seen_from_far_to_begin_with() -> None:
    config = EngineConfig(block_size=4, num_blocks=100_000, max_model_len=256)
    store = Store(config, INFO, make_session().codec)
    view = BlocksView()
    text = shown(view, store)
    assert view.size == 32 and view.items == 3125
    assert "100,000 blocks of 4 tokens · 32 a cell" in view.subtitle
    assert "blocks 0–31: · free 32" in text


# --- the tree ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_weights_equal_a_walk_after_every_record(seed: int) -> None:
    state = EngineState(config_of(seed))
    weights = Weights(state)

    def follow(record: object) -> None:
        state.apply(record)  # pyright: ignore[reportArgumentType]
        weights.apply(record.events)  # pyright: ignore[reportAttributeAccessIssue]
        anew = Weights(state)
        assert weights.tokens == anew.tokens and weights.nodes == anew.nodes
        for node in state.nodes.values():
            assert weights.heaviest(node.id, 99) == anew.heaviest(node.id, 99)
            assert set(weights.heaviest(node.id, 99)) == set(node.children)
            assert weights.children(node.id) == len(node.children)
            assert weights.tokens[node.id] == len(node.tokens) + weights.below(node.id)

    random_run(seed, follow, steps=200)
    assert len(weights.tokens) > 1


def broad_tree(children: int, seed: int = 0) -> EngineState:
    """Four heavy heads with ``children`` leaves each, the first of them the heaviest, and one light
    head with two leaves."""
    rng = random.Random(seed)
    state = EngineState(EngineConfig(block_size=4, num_blocks=4))
    number = 0

    def add(parent: int, tokens: int) -> int:
        nonlocal number
        number += 1
        node = NodeState(number, parent, 0, 0, [rng.randrange(99) for _ in range(tokens)])
        state.nodes[number] = node
        state.nodes[parent].children.append(number)
        return number

    for _ in range(4):
        head = add(ROOT, 64)
        for child in range(children):
            add(head, 64 if child == 0 else 8)
    light = add(ROOT, 4)
    add(light, 4)
    add(light, 4)
    return state


def test_a_large_tree_shows_the_heaviest_and_says_how_many_more_there_are() -> None:
    state = broad_tree(100)
    weights, outline = Weights(state), Outline()
    outline.update(weights)
    heads = [row for row in outline.rows if not row.guides]
    assert [row.node for row in heads] == [1, 102, 203, 304, 405]
    of_first = [row for row in outline.rows if row.before == 2 or row.node in (1, 2)]
    assert [row.node for row in of_first] == [1, 2, 3, 1]
    (more, *_) = [row for row in outline.rows if row.hidden]
    assert (more.node, more.hidden, more.tokens) == (1, 100 - CHILDREN, 8 * (100 - CHILDREN))
    assert more.guides == "└╴"
    assert outline.is_open(1) and not outline.is_open(405)
    outline.show_more(1)
    outline.update(weights)
    assert sum(weights.parent(r.node) == 1 for r in outline.rows) == 100
    assert [row.node for row in outline.rows if row.hidden] == [102, 203, 304]


def test_nodes_fold_one_by_one_and_all_at_once() -> None:
    weights, outline = Weights(broad_tree(100)), Outline()
    outline.update(weights)
    outline.fold(405, open=True)
    outline.fold(1, open=False)
    outline.update(weights)
    shown_nodes = {row.node for row in outline.rows if not row.hidden}
    assert {405, 406, 407} <= shown_nodes and not {2, 3} & shown_nodes
    outline.fold_all(-1)
    outline.update(weights)
    assert len(outline.rows) == 5
    outline.fold_all(1)
    outline.fold_all(1)
    outline.update(weights)
    assert {2, 103, 406} <= {row.node for row in outline.rows}


def test_what_is_selected_shows_however_light_it_is() -> None:
    weights, outline = Weights(broad_tree(100)), Outline()
    outline.fold_all(-1)
    outline.update(weights)
    assert outline.row_of(90) is None and outline.row_of(407) is None
    outline.reveal({90, 407})
    outline.update(weights)
    assert outline.row_of(90) is not None and outline.row_of(407) is not None


def test_left_and_right_unfold_fold_and_go_up() -> None:
    session, store = opened()
    for _ in range(4):
        session.engine.step()
    view = TreeView()
    text = shown(view, store)
    assert "+" not in text.split("\n", 1)[1]
    assert view.sideways(0, 1) == 1  # unfolded already: to the first child
    assert view.sideways(2, -1) == 2  # folds it
    folded = shown(view, store).splitlines()
    assert folded[3].startswith("├╴2 … a") and " +2 " in folded[3]
    assert len(folded) == len(text.splitlines()) - 2
    assert view.sideways(2, -1) == 0  # and then goes to its parent
    assert view.sideways(2, 1) == 2
    assert shown(view, store) == text


def test_enter_on_the_line_for_the_rest_shows_more_of_them() -> None:
    session = make_session(EngineConfig(block_size=1, num_blocks=4000, max_batch_tokens=4000))
    store = Store(session.engine.config, INFO, session.codec)
    session.engine.log.listen(store.apply)
    session.codec.encode_chat("a b c d e f g h i j", "")
    for last in range(300):
        session.engine.submit([0, 1 + last % 9, 2, last % 8], SamplingParams(max_tokens=1))
        session.engine.submit([0, 1], SamplingParams(max_tokens=1))
    while session.engine.has_work():
        session.engine.step()
    view = TreeView()
    before = shown(view, store)
    rest = [i for i, row in enumerate(view.outline.rows) if row.hidden]
    for i in rest:
        assert "more (" in plain(view.line(i)) and view.target(i) is None and view.rests(i)
        assert view.open(i)
    assert not view.open(0)
    after = shown(view, store)
    assert len(after.splitlines()) >= len(before.splitlines())
