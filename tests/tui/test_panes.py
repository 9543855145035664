"""What each pane says about a known run: sharing, chunks, deferral, preemption, eviction."""

from collections.abc import Callable
from itertools import pairwise

import pytest
from minisgl_tui.engine import events as ev
from minisgl_tui.engine.config import EngineConfig
from minisgl_tui.engine.debugger import Mode
from minisgl_tui.engine.errors import RequestRefused
from minisgl_tui.engine.sampling import SamplingParams
from minisgl_tui.engine.state import RETAIN_FINISHED, ROOT
from minisgl_tui.tui.selection import NOTHING, Target
from minisgl_tui.tui.sources.base import Link
from minisgl_tui.tui.store import Store
from minisgl_tui.tui.text import cell_len, plain
from minisgl_tui.tui.views.base import View
from minisgl_tui.tui.views.batch import BatchView
from minisgl_tui.tui.views.blocks import BlocksView
from minisgl_tui.tui.views.causes import CausesView
from minisgl_tui.tui.views.events import EventsView
from minisgl_tui.tui.views.lints import LintsView
from minisgl_tui.tui.views.requests import RequestsView
from minisgl_tui.tui.views.statistics import StatisticsView
from minisgl_tui.tui.views.status import _pool_line, hint_line, status_lines, step_summary
from minisgl_tui.tui.views.timeline import TimelineView
from minisgl_tui.tui.views.tokens import TokensView
from minisgl_tui.tui.views.tree import TreeView
from minisgl_tui.tui.views.why import WhyView
from msgspec.structs import replace

from .toy import CONFIG, INFO, QUESTIONS, ROOMY, Session, WordCodec, make_session

VIEWS: list[Callable[[], View]] = [
    BatchView,
    BlocksView,
    TreeView,
    RequestsView,
    WhyView,
    EventsView,
    TimelineView,
    StatisticsView,
    LintsView,
]


def opened(config: EngineConfig = CONFIG, tokens: int = 24) -> tuple[Session, Store]:
    """A session with the toy's questions waiting, and a store that follows it."""
    session = make_session(config)
    store = Store(config, INFO, session.codec)
    session.engine.log.listen(store.apply)
    for question in QUESTIONS:
        params = SamplingParams(temperature=0, max_tokens=tokens)
        session.engine.submit(session.codec.encode_chat(question, None), params)
    return session, store


def step_until(session: Session, store: Store, event: type) -> None:
    """Step until a step's notes hold an ``event``."""
    for _ in range(100):
        session.engine.step()
        if any(isinstance(note, event) for note in store.state.notes):
            return
    raise AssertionError(f"no {event.__name__} in 100 steps")


def shown(view: View, store: Store, width: int = 76, height: int = 40) -> str:
    """The whole view as text, however long its body."""
    store.settle()
    view.update(store, width, height)
    body = [view.line(i) for i in range(view.body_lines)]
    return "\n".join(plain(line).rstrip() for line in [*view.header, *body, *view.footer])


@pytest.mark.parametrize("width", [38, 76, 120])
def test_long_numbers_of_requests_are_told_apart(width: int) -> None:
    session = make_session(ROOMY)
    session.engine._next_id = 123_455
    store = Store(ROOMY, INFO, session.codec)
    session.engine.log.listen(store.apply)
    for question in QUESTIONS:
        session.engine.submit(session.codec.encode_chat(question, None), SamplingParams())
    session.engine.step()
    for view in (BatchView(), RequestsView()):
        text = shown(view, store, width)
        assert "#123455" in text and "#123456" in text and "#123458" in text


def test_the_ruler_shows_no_part_of_a_number() -> None:
    session, store = opened(ROOMY, tokens=150)
    for _ in range(125):
        session.engine.step()
        ruler = shown(TimelineView(), store, 60).splitlines()[0].split()[2:]
        assert all(int(b) - int(a) == 10 for a, b in pairwise(ruler)), ruler


def test_the_batch_shows_chunks_positions_and_the_spent_budget() -> None:
    session, store = opened()
    session.engine.step()
    text = shown(BatchView(), store)
    assert "budget 20 ▓" in text and "prefill 20  unused 0" in text
    assert "#0  ◐ prefill        20  0–19           1/2       5       0" in text
    assert "waiting: 3" in text
    assert "#1  ○ waiting    the step's token budget is spent" in text
    assert "#2  ○ waiting    behind #1" in text


def test_the_batch_shows_decodes_with_the_token_they_gave() -> None:
    session, store = opened()
    for _ in range(4):
        session.engine.step()
    text = shown(BatchView(), store)
    assert "decode 4  prefill 0  unused 16" in text
    assert "#0  ● decode          1  24" in text
    assert "“ tree”" in text


@pytest.mark.parametrize("width", [45, 60, 76])
def test_the_row_of_a_request_that_ended_says_so(width: int) -> None:
    session, store = opened(ROOMY, tokens=1)
    session.engine.step()
    session.engine.step()
    rows = [line.split()[:3] for line in shown(BatchView(), store, width).splitlines()]
    assert ["#0", "✓", "prefill"] in rows


def test_a_step_that_defers_for_blocks_says_what_was_compared() -> None:
    session, store = opened(EngineConfig(block_size=4, num_blocks=14, max_batch_tokens=64))
    step_until(session, store, ev.Deferred)
    deferred = next(n for n in store.state.notes if isinstance(n, ev.Deferred))
    assert deferred.why == "no_blocks"
    numbers = (
        f"free {deferred.free} + evictable {deferred.evictable} − promised {deferred.promised}"
    )
    batch = shown(BatchView(), store)
    assert f"needs {deferred.need} blocks, {numbers}" in batch
    waits = f"unused: nobody more could be admitted, #{deferred.req} waits for "
    assert waits + f"{deferred.need} blocks" in batch
    assert f"({numbers})" in shown(WhyView(), store, width=160)


def test_preemption_is_told_in_batch_requests_and_why() -> None:
    session, store = opened()
    step_until(session, store, ev.Preempted)
    preempted = next(n for n in store.state.notes if isinstance(n, ev.Preempted))
    assert f"#{preempted.req}  ↩ preempted" in shown(BatchView(), store)
    assert f"gave its blocks to #{preempted.for_req}" in shown(BatchView(), store)
    row = next(
        line for line in shown(RequestsView(), store).splitlines() if f"#{preempted.req} " in line
    )
    assert "↩ preempted" in row and " 1 " in row
    assert f"#{preempted.req} preempted for #{preempted.for_req}" in shown(WhyView(), store)


def test_eviction_is_told_with_the_age_of_what_went() -> None:
    session, store = opened()
    step_until(session, store, ev.Evicted)
    evicted = next(n for n in store.state.notes if isinstance(n, ev.Evicted))
    text = shown(WhyView(), store, width=160)
    assert f"of node {evicted.node} evicted (last used in step {evicted.last_used}" in text


def test_the_block_map_counts_exactly_and_wraps_with_row_numbers() -> None:
    session, store = opened(ROOMY)
    for _ in range(4):
        session.engine.step()
    view = BlocksView()
    text = shown(view, store)
    counts = store.cells.counts
    assert f"· free {counts[0]}" in text and f"▪ private {counts[1]}" in text
    assert f"2–9+ shared {store.cells.shared}" in text
    assert view.subtitle == "200 blocks of 4 tokens"
    assert f"\n{view.per_line:>4}  · " in text
    glyphs = "".join(plain(view.line(i))[6:] for i in range(view.body_lines)).replace(" ", "")
    assert len(glyphs) == 200
    assert glyphs.count("·") == counts[0] and glyphs.count("4") == counts[6]


def test_the_block_under_the_cursor_is_described() -> None:
    session, store = opened()
    for _ in range(4):
        session.engine.step()
    view = BlocksView()
    table = store.state.requests[0].block_table
    view.cursor = table[1]
    text = shown(view, store)
    assert f"block {table[1]} 4 node 2, held by #0 #1 #2 #3 · positions 4–7" in text
    assert "“ guide to inference engines”" in text
    view.cursor = table[-1]
    assert "private to #0, 1 of 4 slots filled · positions 24–24" in shown(view, store)
    view.cursor = CONFIG.num_blocks - 1
    assert f"block {CONFIG.num_blocks - 1} · free" in shown(view, store)


def test_the_tree_shows_shared_runs_above_their_branches() -> None:
    session, store = opened()
    for _ in range(4):
        session.engine.step()
    lines = shown(TreeView(), store).splitlines()
    assert lines[0].split() == ["prefix", "node", "tokens", "blocks", "refs", "hits", "age"]
    assert lines[1].startswith("4 You are a careful guide")
    (head,) = store.weights.heaviest(ROOT, 2)
    assert lines[1].split()[-6:] == [str(head), "16", "4", "4", "3", "1"]
    assert lines[2].startswith("├╴■ … Why are long prompts")  # the heaviest comes first
    assert lines[3].startswith("├╴2 … a")
    assert lines[4].startswith("│ ├╴■  radix tree?")
    assert lines[-1].startswith("└╴■ … preemption")


def test_a_deep_tree_keeps_room_for_text() -> None:
    session = make_session(EngineConfig(block_size=1, num_blocks=2000, max_batch_tokens=2000))
    store = Store(session.engine.config, INFO, session.codec)
    session.engine.log.listen(store.apply)
    ids = session.codec.encode_chat("one two three", "")
    for depth in range(1, 60):
        prompt = ids[:1] * depth + ids[1:3]
        session.engine.submit(prompt, SamplingParams(max_tokens=1))
        session.engine.step()
    text = shown(TreeView(), store)
    assert "… " in text
    assert all(cell_len(line) <= 76 for line in text.splitlines())


def test_requests_unfold_to_the_whole_prompt_and_answer() -> None:
    session, store = opened(ROOMY)
    for _ in range(14):
        session.engine.step()
    view = RequestsView()
    folded = shown(view, store)
    assert "#0  ● decoding        23       0      13/24" in folded
    assert "┌" not in folded
    store.select(Target("request", 0))
    text = shown(view, store)
    assert "┌ 23 prompt tokens" in text and "│ You are a careful guide" in text
    assert "│ A radix tree keeps the prefixes that requests have in common." in text


def test_requests_without_an_answer_show_their_question_not_what_all_begin_with() -> None:
    _, store = opened(ROOMY)
    text = shown(RequestsView(), store, 100)
    assert "“What is a radix tree?”" in text and "“What is preemption?”" in text
    assert "You are a careful guide" not in text


def test_finished_requests_say_how_they_ended() -> None:
    session, store = opened(ROOMY)
    session.engine.abort(3)
    while session.engine.has_work():
        session.engine.step()
    text = shown(RequestsView(), store)
    assert text.count("✓ length") == 3 and "⊘ abort" in text
    why = shown(WhyView(), store)
    assert "#0 finished: it reached its length limit." in why and "#3 was aborted." in why


def test_a_failed_step_is_told_with_its_error() -> None:
    session, store = opened()

    def broken(plan: object) -> object:
        raise ValueError("a matrix went missing")

    session.engine.runner.execute = broken  # pyright: ignore[reportAttributeAccessIssue]
    session.engine.step()
    why = shown(WhyView(), store, width=160)
    assert "The step failed: ValueError: a matrix went missing." in why
    assert "✗ error" in shown(RequestsView(), store)


def test_a_refused_prompt_is_told_with_the_numbers() -> None:
    session, store = opened()
    with pytest.raises(Exception, match="tokens"):
        session.engine.submit([0] * 200, SamplingParams())
    assert "#4 refused: its prompt has 200 tokens, the KV pool holds 96." in shown(WhyView(), store)


def test_a_refused_request_that_is_selected_says_so_even_when_it_is_no_longer_kept() -> None:
    session, store = opened()
    words = "#4 refused: its prompt has 200 tokens, the KV pool holds 96"
    for kept in (True, False):
        for _ in range(1 if kept else RETAIN_FINISHED):
            with pytest.raises(RequestRefused):
                session.engine.submit([0] * 200, SamplingParams())
        store.select(Target("request", 4))
        assert (4 in store.state.requests) is kept
        assert f"◆ {words} · esc clears" in plain(hint_line(store, 100))
        store.ask(Target("request", 4))
        assert store.question is not None
        said = [cause.text for cause in store.question.causes]
        assert said[0] == f"{words}." and "raise --num-blocks" in said[1] and len(said) == 2
    store.select(Target("request", 0))
    assert "refused" not in plain(hint_line(store, 100))


def test_the_newest_step_comes_first_and_quiet_steps_say_so() -> None:
    session, store = opened()
    for _ in range(4):
        session.engine.step()
    lines = shown(WhyView(), store).splitlines()
    assert lines[0].startswith("── step 4")
    assert "nothing to decide" in lines[1]
    steps = [line.split()[2] for line in lines if line.startswith("── step")]
    assert steps == ["4", "3", "2", "1", "0"]


def test_the_status_lines_give_model_mode_pool_and_hit_rate() -> None:
    session, store = opened()
    for _ in range(4):
        session.engine.step()
    store.idle = False
    first, second = (plain(line) for line in status_lines(store, 80))
    assert first.startswith(" toy-135m · llama · float32 · cpu") and "⏸ paused   step 4" in first
    assert "17 used  0 evictable  7 free of 24" in second
    assert "run 4  wait 0  hit 50%" in second
    assert cell_len(first) == cell_len(second) == 80


def test_the_address_comes_before_the_note_that_drawing_is_slow() -> None:
    _, store = opened()
    store.link, store.mode, store.slow = Link("http://127.0.0.1:34499"), Mode.PLAYING, True
    narrow, wide = (plain(status_lines(store, width)[0]) for width in (60, 100))
    assert " LIVE 127.0.0.1:34499 " in narrow and "▶ playing" in narrow and "Hz" not in narrow
    assert " LIVE 127.0.0.1:34499 " in wide and "drawn at 5 Hz   ▶ playing" in wide


def test_the_pool_is_told_whole_in_a_small_terminal() -> None:
    _, store = opened(replace(ROOMY, num_blocks=512))  # all of them free
    store.config = replace(ROOMY, num_blocks=812)
    assert "100 used 200 evictable 512 free " in plain(_pool_line(store, 100, 56))
    assert "100 used  200 evictable  512 free " in plain(_pool_line(store, 100, 80))


@pytest.mark.parametrize("width", [58, 78])
@pytest.mark.parametrize("make_view", [BatchView, RequestsView])
def test_large_ids_of_requests_are_told_apart(make_view: Callable[[], View], width: int) -> None:
    session, store = opened()
    session.engine._next_id = 18_012  # pyright: ignore[reportAttributeAccessIssue,reportPrivateUsage]
    session.engine.submit([1, 2, 3], SamplingParams(max_tokens=4))
    text = shown(make_view(), store, width)
    assert "#18012 " in text and " #0 " in text
    assert all(cell_len(line) <= width for line in text.splitlines())


def test_the_hint_follows_the_situation() -> None:
    session, store = opened(ROOMY)
    store.idle = False
    assert "press s to take the first step" in plain(hint_line(store, 80))
    session.engine.step()
    assert plain(hint_line(store, 80)).strip() == step_summary(store, 78)
    assert step_summary(store).startswith("step 1: 0 decode + 20 prefill tokens in 7.0 ms (forward")
    store.select(Target("request", 0))
    assert "◆ #0 holds 5 blocks" in plain(hint_line(store, 80))


def test_parts_of_a_step_keep_their_order_and_go_one_by_one_where_there_is_no_room() -> None:
    session, store = opened(ROOMY)
    session.engine.step()
    store.idle = False
    store.state.timings = {"sample": 0.002, "prepare": 0.001, "forward": 0.005, "schedule": 0.02}
    lead = "step 1: 0 decode + 20 prefill tokens in 7.0 ms"
    for width, parts in [
        (120, "(forward 5.0 · schedule 20.0 · prepare 1.0 · sample 2.0)"),
        (80, "(forward 5.0 · schedule 20.0)"),
        (64, "(forward 5.0)"),
    ]:
        assert plain(hint_line(store, width)).strip() == f"{lead} {parts}"


def test_the_bar_of_the_pool_keeps_its_length() -> None:
    session, store = opened(ROOMY)
    lengths: set[int] = set()
    while session.engine.has_work():
        line = plain(status_lines(store, 80)[1])
        lengths.add(sum(line.count(glyph) for glyph in "█▒░"))
        session.engine.step()
    assert len(lengths) == 1 and min(lengths) >= 8


def test_the_hint_tells_those_that_did_not_finish_from_those_that_did() -> None:
    session, store = opened(ROOMY)
    with pytest.raises(Exception, match="tokens"):
        session.engine.submit([0] * 1000, SamplingParams())
    session.engine.abort(3)
    while session.engine.has_work():
        session.engine.step()
    store.idle = True
    words = "3 finished, 1 aborted, 1 ended with an error: press i for another, q to quit"
    assert plain(hint_line(store, 100)).strip() == words


@pytest.mark.parametrize("make_view", VIEWS)
@pytest.mark.parametrize("width", [45, 57, 77, 97, 150])
def test_no_line_is_wider_than_its_pane(make_view: Callable[[], View], width: int) -> None:
    session, store = opened()
    view = make_view()
    while session.engine.has_work():
        session.engine.step()
        if store.state.step % 5 == 0:
            store.select(Target("request", store.state.step % 4))
            too_wide = [ln for ln in shown(view, store, width).splitlines() if cell_len(ln) > width]
            assert not too_wide


@pytest.mark.parametrize("make_view", [*VIEWS, CausesView, lambda: TokensView(0)])
def test_a_view_that_was_never_drawn_has_no_lines_and_leads_nowhere(
    make_view: Callable[[], View],
) -> None:
    view = make_view()
    assert view.items == view.body_lines == 0
    assert view.target(0) is view.place(0) is None
    assert not view.rests(0) and view.first_linked(NOTHING) is None


def test_requests_long_gone_leave_no_trace_behind() -> None:
    session, store = opened(ROOMY)
    for _ in range(RETAIN_FINISHED + 5):
        session.engine.submit([0, 1], SamplingParams(max_tokens=1))
    while session.engine.has_work():
        session.engine.step()
    gone = next(r for r in range(RETAIN_FINISHED) if r not in store.state.requests)
    store.select(Target("request", gone))
    assert shown(RequestsView(), store)
    assert "no longer kept" in store.links.words


def test_siblings_in_the_tree_begin_where_they_differ() -> None:
    """Prompts that part in the middle of a block have its first tokens in common."""
    session = make_session(ROOMY)
    codec = session.codec
    assert isinstance(codec, WordCodec)
    store = Store(ROOMY, INFO, codec)
    session.engine.log.listen(store.apply)
    for word in ("red", "blue"):
        prompt = codec.encode(f"one two three four five six {word} and so it goes on and on")
        session.engine.submit(prompt, SamplingParams(max_tokens=2))
    session.engine.step()
    labels = [line for line in shown(TreeView(), store).splitlines() if "╴" in line]
    assert [("… red and" in line, "… blue and" in line) for line in labels] == [
        (True, False),
        (False, True),
    ]
