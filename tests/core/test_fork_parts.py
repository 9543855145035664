"""The parts of a fork: costs that are learnt, prompts that are edited, figures that are counted."""

import random
import re

import pytest
from minisgl_tui.engine.errors import UserError
from minisgl_tui.engine.fork.costs import Pace, StepCosts, StepLoad, fit, load_of
from minisgl_tui.engine.fork.edits import Editor, Spelling
from minisgl_tui.engine.fork.figures import Figures
from minisgl_tui.engine.state import EngineState
from minisgl_tui.engine.stats import percentile
from minisgl_tui.engine.trace import Piece
from test_oracle import run_load

# --- costs ---------------------------------------------------------------------------------------


def some_load(rng: random.Random) -> StepLoad:
    chunks = [(rng.randrange(500), rng.randint(1, 256)) for _ in range(rng.choice([0, 0, 1, 2]))]
    return load_of(chunks, [rng.randrange(2000) for _ in range(rng.randint(1, 32))])


def test_a_load_counts_tokens_and_the_context_they_read() -> None:
    load = load_of([(0, 10), (32, 8)], [99, 4])
    assert load == StepLoad(prefill=18, prefill_reads=10 * 10 + 8 * 40, decodes=2, decode_reads=105)


def test_costs_that_are_a_sum_are_found_again() -> None:
    rng = random.Random(0)
    true = StepCosts((4e-3, 1e-4, 2e-8, 3e-4, 5e-8))
    samples = [(load, true.seconds(load)) for load in (some_load(rng) for _ in range(300))]
    found = fit(samples)
    assert found.shares == pytest.approx(true.shares, rel=1e-3)
    assert found.error < 1e-6 and found.drift < 1e-6 and found.steps == 300


def test_noise_shows_in_the_error_and_stalls_do_not_bend_the_costs() -> None:
    rng = random.Random(1)
    true = StepCosts((4e-3, 1e-4, 0.0, 3e-4, 0.0))
    loads = [some_load(rng) for _ in range(400)]
    samples = [(load, true.seconds(load) * rng.uniform(0.9, 1.1)) for load in loads]
    found = fit([(load, 100 * s if rng.random() < 0.02 else s) for load, s in samples])
    assert 0.03 < found.error < 0.08
    total = sum(true.seconds(load) for load in loads)
    assert sum(found.seconds(load) for load in loads) == pytest.approx(total, rel=0.03)


def test_no_share_is_below_zero_whatever_was_measured() -> None:
    rng = random.Random(2)
    for _ in range(30):
        samples = [(some_load(rng), rng.uniform(1e-3, 1e-1)) for _ in range(rng.randint(1, 12))]
        found = fit(samples)
        assert min(found.shares) >= 0 < max(found.shares)


def test_one_kind_of_step_is_enough_to_learn_its_cost() -> None:
    decode = load_of([], [10])
    found = fit([(decode, 0.02)] * 5)
    assert found.seconds(decode) == pytest.approx(0.02)


def test_a_slow_moment_is_slow_for_the_other_run_too() -> None:
    decode, chunk = load_of([], [0]), load_of([(0, 100)], [])
    costs = StepCosts((0.0, 0.001, 0.0, 0.01, 0.0))
    pace = Pace(costs, [(1.0, decode, 0.02), (2.0, decode, 0.005), (3.0, decode, 1.01)])
    assert pace.seconds(chunk, 1.01) == pytest.approx(0.2)  # twice as long
    assert pace.seconds(chunk, 2.0) == pytest.approx(0.05)
    assert pace.seconds(chunk, 3.5) == pytest.approx(1.1)  # held up for a second
    for calm in (0.5, 1.5, 9.0):
        assert pace.seconds(chunk, calm) == pytest.approx(0.1)


# --- edits ---------------------------------------------------------------------------------------

WORDS = ["It", " is", " 12", ":", "30", ".", " Be", " kind", " late", "é", "😀"]
TEXTS = dict(enumerate(WORDS))
PIECES = {id: Piece(text, text.encode()) for id, text in TEXTS.items()}
PIECES |= {100 + b: Piece("�", bytes([b])) for b in "😀ñ".encode()}  # a byte each
PIECES[99] = Piece("<|end|>", b"")


def edited(prompt: list[int], *replace: tuple[str, str]) -> list[int]:
    return Editor(replace, Spelling(PIECES)).edit(prompt, [0])


PROMPT = [99, 0, 1, 2, 3, 4, 5, 99, 6, 7, 5]  # It is 12:30. Be kind.


def test_what_a_pattern_finds_is_spelled_anew_and_all_else_stays() -> None:
    assert edited(PROMPT, (r" \d+:\d+", " late")) == [99, 0, 1, 8, 5, 99, 6, 7, 5]
    assert edited(PROMPT, (" kind", "")) == [99, 0, 1, 2, 3, 4, 5, 99, 6, 5]
    assert edited(PROMPT, ("nothing like it", "x")) is PROMPT
    assert edited(PROMPT, (" Be", " 12"), (r"12:(\d+)", r"12\1")) == (
        [99, 0, 1, 2, 4, 5, 99, 2, 7, 5]
    )


def test_a_token_that_is_found_in_part_is_spelled_anew_with_its_rest() -> None:
    with pytest.raises(UserError, match="' 12d' cannot be spelled"):
        edited(PROMPT, ("kin", "12"))
    pieces = PIECES | {200 + i: Piece(c, c.encode()) for i, c in enumerate(" kind12I")}
    editor = Editor([("kin", "12"), ("1", "k")], Spelling(pieces))
    text = b"".join(pieces[token].raw for token in editor.edit(PROMPT, [7, 8])).decode()
    assert text == "It is k2:30. Be k2d."
    assert editor.edited == {7, 8} and editor.more == 2 * (len(editor.edit(PROMPT, [])) - 11)


@pytest.mark.parametrize("seed", range(20))
def test_texts_come_out_as_a_replacement_in_the_text_gives_them(seed: int) -> None:
    rng = random.Random(seed)
    letters = [chr(c) for c in range(ord("a"), ord("f"))] + ["é", "😀", "ñ"]
    made = ["".join(rng.choices(letters, k=rng.randint(1, 3))) for _ in range(30)]
    raws = {*(w.encode() for w in made), *(bytes([b]) for w in letters for b in w.encode())}
    pieces = {i: Piece("", raw) for i, raw in enumerate(sorted(raws))}
    spelling = Spelling(pieces)
    for _ in range(60):
        prompt = rng.choices(list(pieces), k=rng.randint(1, 20))
        raw = b"".join(pieces[token].raw for token in prompt)
        pattern = re.compile("".join(rng.choices([*letters, "[a-c]", "."], k=rng.randint(1, 3))))
        text = "".join(rng.choices(letters, k=rng.randint(0, 3)))
        whole = raw.decode(errors="surrogateescape")
        wanted = pattern.sub(text, whole).encode(errors="surrogateescape")
        try:
            whole.encode()
            found = Editor([(pattern.pattern, text)], spelling).edit(prompt, [])
        except (UnicodeEncodeError, UserError):  # half characters, or nothing left
            continue
        assert b"".join(pieces[token].raw for token in found) == wanted


def test_the_tokenizer_spells_where_it_can() -> None:
    spelling = Spelling(PIECES, lambda text: [42] if text == " late" else [])
    assert Editor([(r" \d+:\d+", " late")], spelling).edit(PROMPT, [0]) == [
        99,
        0,
        1,
        42,
        5,
        99,
        6,
        7,
        5,
    ]
    assert Editor([(" Be", "é")], spelling).edit(PROMPT, [0])[8] == 9


# --- figures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(30))
def test_figures_of_a_whole_run_are_those_of_its_statistics(seed: int) -> None:
    load = run_load(seed)
    figures = Figures(EngineState(load.config))
    figures.add_all(load.records)
    stats = load.state.stats
    told = {figure.name: figure.value for figure in figures.all()}
    assert told["answered to the end"] == sum(stats.finished.get(r, 0) for r in ("stop", "length"))
    assert told["failed or refused"] == stats.refused + stats.finished.get("error", 0)
    assert told["not answered to the end"] == 0
    assert told["steps"] == stats.steps
    assert told["preemptions"] == stats.preemptions
    assert told["prefill tokens computed"] == stats.prefill_tokens
    assert len(figures.itl) == stats.itl.count
    assert sum(figures.itl) == pytest.approx(stats.itl.sum)
    for name, histogram in (("queue", stats.queue), ("TTFT", stats.ttft)):
        times = [getattr(r, name.lower()) for r in figures.requests.values()]
        known = [time for time in times if time is not None]
        assert len(known) == histogram.count
        assert told[f"{name} p99"] == percentile(known, 0.99)
    for request in load.submitted:
        mine = figures.requests[request.id]
        assert (mine.outputs, mine.preemptions) == (len(request.output), request.preemptions)
        assert mine.reason == request.finish_reason


@pytest.mark.parametrize("seed", range(10))
def test_figures_from_the_middle_count_what_comes_after(seed: int) -> None:
    load = run_load(seed)
    cut = len(load.records) // 2
    state = EngineState(load.config)
    for record in load.records[:cut]:
        state.apply(record)
    figures, whole = Figures(state), Figures(EngineState(load.config))
    figures.add_all(load.records[cut:])
    whole.add_all(load.records)
    assert figures.itl == whole.itl[len(whole.itl) - len(figures.itl) :]
    for id, mine in figures.requests.items():
        same = whole.requests[id]
        assert (mine.e2e, mine.outputs, mine.reason) == (same.e2e, same.outputs, same.reason)
        assert mine.ttft in (None, same.ttft)
