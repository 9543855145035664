"""The small parts: text, cells, decoding, links, words, layout."""

import random

import pytest
from minisgl_tui.engine import events as ev
from minisgl_tui.engine.blocks import BlockState
from minisgl_tui.engine.config import EngineConfig
from minisgl_tui.engine.engine import Engine
from minisgl_tui.engine.sampling import SamplingParams
from minisgl_tui.engine.simulate import SimulatedRunner, random_tokens
from minisgl_tui.engine.snapshot import RequestState
from minisgl_tui.engine.state import EngineState
from minisgl_tui.tui.cells import GLYPHS, STYLES, CellMap, code_for
from minisgl_tui.tui.changes import describe
from minisgl_tui.tui.decoding import Texts
from minisgl_tui.tui.explain import NOTES, explain
from minisgl_tui.tui.palette import OWN, STATUS_GLYPHS, style_table
from minisgl_tui.tui.sampled import SampledSteps
from minisgl_tui.tui.screens.layout import PANES, Layout, layout_for, panes_shown
from minisgl_tui.tui.selection import Target, resolve
from minisgl_tui.tui.text import bar, cell_len, clip, clip_left, pad, plain, visible, wrap

from .toy import ByteCodec


def test_nothing_a_terminal_would_obey_gets_through() -> None:
    assert visible("a\x1b[2Jb\u202ec\r\n\t\x9b") == "a·[2Jb·c␍↵⇥·"


@pytest.mark.parametrize("text", ["plain words here", "漢字かな交じり文", "a漢b字c", "", "👍🏽 ok"])
@pytest.mark.parametrize("width", [0, 1, 2, 5, 40])
def test_clipping_and_padding_count_cells(text: str, width: int) -> None:
    assert cell_len(clip(text, width)) <= width
    assert cell_len(clip_left(text, width)) <= width
    assert cell_len(pad(text, width)) == width


def test_wrapping_keeps_every_word_and_line_end() -> None:
    text = "one two three\nfour " + "x" * 30
    lines = wrap(text, 10)
    assert all(cell_len(line) <= 10 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "").replace("\n", "")


def test_a_bar_shows_every_part_that_is_not_zero() -> None:
    line = bar([(1, "a", ""), (9999, "b", ""), (0, "c", "")], 20)
    assert plain(line) == "a" + "b" * 19


def test_every_state_has_a_glyph_of_its_own_and_a_known_style() -> None:
    assert len(set(GLYPHS)) == len(GLYPHS)
    table, *others = (style_table(theme) for theme in OWN)
    assert all((style, "") in table for style in STYLES)
    assert len({table[style, ""] for style in STYLES[:5]}) == 5
    assert all(other.keys() == table.keys() for other in others)
    glyphs = [glyph for glyph, _ in STATUS_GLYPHS.values()]
    assert len(set(glyphs)) == len(glyphs) - 1  # stop and length are both finished
    for _, style in STATUS_GLYPHS.values():
        assert (style, "") in table


def run_at_random(engine: Engine, seed: int) -> None:
    """Steps in which requests come, are aborted and give way."""
    rng = random.Random(seed)
    for _ in range(120):
        if rng.random() < 0.5:
            prompt = [rng.randrange(2) for _ in range(rng.randrange(1, 10))]
            engine.submit(prompt, SamplingParams(max_tokens=rng.randrange(1, 10)))
        if rng.random() < 0.1 and engine.requests:
            engine.abort(rng.choice(list(engine.requests)))
        engine.step()


@pytest.mark.parametrize("seed", range(4))
def test_cells_equal_a_recount_after_every_record(seed: int) -> None:
    config = EngineConfig(block_size=2, num_blocks=10, max_batch_tokens=9, seed=seed)
    runner = SimulatedRunner(10, 2, random_tokens(seed, 2))
    engine = Engine(config, runner, runner.clock)
    state, cells = EngineState(config), CellMap(10)

    def follow(record: ev.StepRecord) -> None:
        cells.apply(state, record)
        wanted = bytearray(10)
        for block in range(10):
            kind = state.block_state[block]
            wanted[block] = 1 if kind == BlockState.PRIVATE else 0
            if kind == BlockState.CACHED:
                held = sum(block in r.block_table for r in state.requests.values())
                wanted[block] = code_for(held)
        assert cells.codes == wanted
        assert cells.counts == [wanted.count(code) for code in range(len(GLYPHS))]

    engine.log.listen(follow)
    run_at_random(engine, seed)
    assert state.stats.preemptions and state.stats.evicted_blocks


@pytest.mark.parametrize("seed", range(4))
def test_every_token_is_known_with_the_step_it_was_sampled_in(seed: int) -> None:
    config = EngineConfig(block_size=2, num_blocks=10, max_batch_tokens=5, seed=seed)
    runner = SimulatedRunner(10, 2, random_tokens(seed, 2))
    engine = Engine(config, runner, runner.clock)
    state = EngineState(config)
    sampled = SampledSteps(state)
    known: dict[int, list[int]] = {}

    def follow(record: ev.StepRecord) -> None:
        state.apply(record)
        sampled.apply(record, state)
        for event in record.events:
            if isinstance(event, ev.Sampled):
                for req in event.reqs:
                    known.setdefault(req, []).append(record.step)
        for req, steps in known.items():
            found = [sampled.step_of(req, i) for i in range(len(steps) + 2)]
            assert found == [*steps, None, None]

    engine.log.listen(follow)
    run_at_random(engine, seed)
    assert state.stats.preemptions and len(known) > 20


def test_answers_grow_without_ever_showing_half_a_character() -> None:
    answer = "naïve 漢字 👍 done".encode()
    request = RequestState(0, list(b"hi"), 2, SamplingParams(), 0, 0.0)
    texts, seen = Texts(ByteCodec()), ""
    for byte in answer:
        request.tokens.append(byte)
        text = texts.answer(request)
        assert "\ufffd" not in text and text.startswith(seen)
        seen = text
    assert seen == answer.decode()


@pytest.mark.parametrize("chunk", [2, 3, 7])
def test_answers_that_grow_by_several_tokens_come_out_the_same(chunk: int) -> None:
    answer = ("漢字かな " * 5).encode()
    request = RequestState(0, list(b"hi"), 2, SamplingParams(), 0, 0.0)
    texts = Texts(ByteCodec())
    for at in range(0, len(answer), chunk):
        request.tokens += answer[at : at + chunk]
        texts.answer(request)
    assert texts.answer(request) == answer.decode()


class _Chat(ByteCodec):
    """Bytes between the marks of a chat template."""

    def encode_chat(self, text: str, system: str | None = None) -> list[int]:
        return list(f"<s>system\n{system or 'Hi.'}</s>\n<s>user\n{text}</s>\n<s>bot\n".encode())

    def chat_frame(self) -> tuple[str, str]:
        return "<s>system\nHi.</s>\n<s>user\n", "</s>\n<s>bot\n"


@pytest.mark.parametrize("codec", [_Chat(), ByteCodec()])
def test_the_question_is_the_prompt_without_its_template(codec: ByteCodec) -> None:
    texts = Texts(codec)
    ids = codec.encode_chat("one\ntwo", "Be brief.")
    assert texts.question(RequestState(0, ids, len(ids), SamplingParams(), 0, 0.0)) == "one\ntwo"
    raw = list(b"no template at all")
    request = RequestState(1, raw, len(raw), SamplingParams(), 0, 0.0)
    assert texts.question(request) == "no template at all"


def test_links_go_both_ways_between_requests_nodes_and_blocks() -> None:
    runner = SimulatedRunner(32, 2, random_tokens(0, 5))
    engine = Engine(EngineConfig(block_size=2, num_blocks=32), runner, runner.clock)
    state = EngineState(engine.config)
    engine.log.listen(state.apply)
    for last in (7, 8):
        engine.submit([1, 2, 3, 4, 5, 6, last, last, last], SamplingParams(max_tokens=9))
    for _ in range(3):
        engine.step()
    of_request = resolve(state, Target("request", 0))
    table = state.requests[0].block_table
    assert of_request.blocks == set(table) and of_request.requests == {0}
    shared = state.block_owner[table[0]]
    assert shared in of_request.nodes
    of_node = resolve(state, Target("node", shared))
    assert of_node.requests == {0, 1} and of_node.blocks == set(state.nodes[shared].blocks)
    of_block = resolve(state, Target("block", table[0]))
    assert of_block.nodes == {shared} and of_block.requests == {0, 1}
    private = resolve(state, Target("block", table[-1]))
    assert private.requests == {0} and not private.nodes
    assert "it was evicted" in resolve(state, Target("node", 999)).words
    assert resolve(state, Target("node", 999), came=False).words == "node 999 is not there yet"
    assert resolve(state, Target("request", 9), came=False).words == "#9 has not come yet"


EVENTS: list[ev.AnyEvent] = [
    ev.Submitted(1, [1, 2], SamplingParams()),
    ev.Refused(1, "prompt_exceeds_pool", 900, 512),
    ev.Refused(1, "prompt_exceeds_context", 900, 512),
    *(
        ev.Deferred(1, why, 5, 3, 0, 2, 0, 2)
        for why in ("no_blocks", "no_budget", "max_running", "preempting", "something_new")
    ),
    ev.Admitted(1, 4, [1, 2], 32, 3, 9, 1, 0),
    ev.Starved(1, "no_budget", 1),
    ev.Preempted(1, 0, 1, 0, 0, 48),
    ev.Preempted(1, 1, 1, 0, 0, 48),
    *(ev.Finished(1, reason, "why") for reason in ("stop", "length", "abort", "error")),
    *(ev.Evicted(4, [1, 2], why, 1, 7) for why in ("capacity", "withdrawn", "reset")),
    ev.StepFailed("ValueError: no"),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda e: type(e).__name__)
def test_every_decision_is_a_sentence(event: ev.AnyEvent) -> None:
    note = explain(event)
    assert note is not None
    assert note.sentence.endswith(".") and len(note.sentence) > 10
    assert note.sentence[0] in "#T" or note.sentence[0].isdigit()


def test_sentences_carry_the_numbers_that_were_compared() -> None:
    note = explain(ev.Deferred(11, "no_blocks", 5, 3, 0, 2, 0, 2))
    assert note is not None
    assert note.sentence == (
        "#11 has to wait: it needs 5 blocks and can have 1 (free 3 + evictable 0 − promised 2); "
        "2 more behind it."
    )
    note = explain(ev.Admitted(1, 0, [], 0, 5, 96, 0, 0))
    assert note is not None
    words = "needs 5 blocks for all of its prompt and the start of its answer (free 96)."
    assert note.sentence == f"#1 admitted: nothing of it is cached; {words}"
    assert {type(e) for e in EVENTS} == set(NOTES)


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (ev.Decoding([4]), "1 request decodes a token: #4"),
        (ev.Decoding([4, 5]), "2 requests decode a token each: #4 #5"),
        (ev.Released(4, [1], 1), "#4 lets go of its table: 1 block (1) freed; 1 stays in the tree"),
        (ev.Released(4, [], 2), "#4 lets go of its table: no block freed; 2 stay in the tree"),
        (ev.Split(3, 4, 1), "node 3 split: its first 1 token is node 4 now"),
        (ev.Split(3, 4, 2), "node 3 split: its first 2 tokens are node 4 now"),
        (
            ev.Deferred(1, "no_blocks", 5, 3, 0, 2, 1, 0),
            "#1 has to wait: it needs 5 blocks beside the 1 token of it that is cached and can "
            "have 1 (free 3 + evictable 0 − promised 2).",
        ),
    ],
)
def test_verbs_agree_with_their_number(event: ev.AnyEvent, words: str) -> None:
    assert describe(event).sentence == words


@pytest.mark.parametrize(
    ("size", "layout"),
    [
        ((59, 16), Layout.TINY),
        ((60, 15), Layout.TINY),
        ((60, 16), Layout.NARROW),
        ((99, 60), Layout.NARROW),
        ((100, 30), Layout.MEDIUM),
        ((159, 50), Layout.MEDIUM),
        ((160, 40), Layout.WIDE),
        ((160, 39), Layout.MEDIUM),
    ],
)
def test_layouts_change_at_their_limits(size: tuple[int, int], layout: Layout) -> None:
    assert layout_for(*size) is layout


def test_the_active_pane_always_shows() -> None:
    for layout in (Layout.NARROW, Layout.MEDIUM, Layout.WIDE):
        for active in PANES:
            for zoomed in (False, True):
                assert active in panes_shown(layout, active, {3: 1, 6: 2}, zoomed)


def test_panes_that_share_a_slot_take_turns() -> None:
    assert panes_shown(Layout.MEDIUM, 1, {}, False) == {1, 2, 3, 5}
    assert panes_shown(Layout.MEDIUM, 2, {7: 1, 6: 3, 9: 2}, False) == {2, 3, 6, 7}
    assert panes_shown(Layout.WIDE, 1, {}, False) == {1, 2, 3, 5, 7}
    assert panes_shown(Layout.WIDE, 9, {8: 1}, False) == {2, 3, 7, 8, 9}
