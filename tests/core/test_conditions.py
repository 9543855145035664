"""Conditions: what people may write, what it means, and that nothing else gets through."""

import ast
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minisgl_tui.engine import conditions, quantities
from minisgl_tui.engine import events as ev
from minisgl_tui.engine.conditions import MAX_DEPTH, MAX_LENGTH, parse
from minisgl_tui.engine.config import EngineConfig
from minisgl_tui.engine.errors import UserError
from minisgl_tui.engine.sampling import SamplingParams
from minisgl_tui.engine.state import EngineState

PREEMPTED = ev.Preempted(req=7, for_req=9, need=1, free=0, evictable=0, lost_tokens=480)
DEFERRED = ev.Deferred(
    req=9, why="no_blocks", need=5, free=3, evictable=0, promised=0, cached_tokens=64, behind=2
)
RELEASED = ev.Released(req=7, freed=[811, 812], cached=2)
ALLOCATED = ev.Allocated(req=9, blocks=[801, 812], free=2)
DECODING = ev.Decoding(reqs=[3, 7])
SUBMITTED = ev.Submitted(4, [1, 2, 3], SamplingParams())
EVENTS = [PREEMPTED, DEFERRED, RELEASED, ALLOCATED, DECODING, SUBMITTED, None]


def state(**fields: object) -> EngineState:
    made = EngineState(EngineConfig(num_blocks=100))
    for name, value in fields.items():
        assert hasattr(made, name)
        setattr(made, name, value)
    return made


def refusal(text: str) -> str:
    with pytest.raises(UserError) as error:
        parse(text)
    assert "\n" not in str(error.value)
    return str(error.value)


# --- what holds ----------------------------------------------------------------------------------


def test_quantities_of_the_state() -> None:
    low = state(free=9, waiting=[4], step=100)
    assert parse("free<10 and waiting>0").holds(low)
    assert not parse("free<10 and waiting>1").holds(low)
    assert parse("step >= 100").holds(low)
    assert not parse("step >= 100").holds(state(step=99))
    assert parse("kv > 0.9").holds(state(free=4, evictable=5))
    assert not parse("kv > 0.9").holds(state(free=5, evictable=5))
    assert parse("used == 90 == free * 18").holds(state(free=5, evictable=5))
    counted = state()
    counted.stats.prompt_tokens, counted.stats.cached_tokens = 8, 2
    counted.stats.finished = {"stop": 2, "error": 1}
    assert parse("hit_rate == .25 and finished == 3").holds(counted)


def test_every_quantity_can_be_asked_of_a_fresh_state() -> None:
    for name, quantity in quantities.QUANTITIES.items():
        assert quantity.meaning
        assert isinstance(parse(f"{name} > -1").holds(state()), bool)


@pytest.mark.parametrize(
    ("text", "event"),
    [
        ('ev=="preempted" and req==7', PREEMPTED),
        ("ev == 'preempted' and for_req == 9 and lost_tokens > 100", PREEMPTED),
        ('why=="no_blocks"', DEFERRED),
        ('"blocks" in why and need > promised + behind', DEFERRED),
        ("812 in blocks and req == 9", ALLOCATED),
        ("812 in blocks and req == 7", RELEASED),  # the blocks it frees
        ("7 in reqs", DECODING),
        ("ev in ('decoding', 'sampled')", DECODING),
        ('"cod" in ev', DECODING),
        ("5 not in prompt and 2 in prompt", SUBMITTED),
        ("0 < lost_tokens <= 480 != 8", PREEMPTED),
        ("lost_tokens in (1, -2, 480)", PREEMPTED),
        ("lost_tokens not in [1, 2]", PREEMPTED),
    ],
)
def test_fields_of_the_event(text: str, event: ev.Event) -> None:
    condition = parse(text)
    assert condition.needs_event
    assert condition.holds(state(), event)
    assert not any(condition.holds(state(), other) for other in EVENTS if other is not event)


def test_where_state_and_event_share_a_name_the_state_is_meant() -> None:
    assert DEFERRED.free == 3
    assert parse("free == 100").holds(state(), DEFERRED)
    assert not parse("free == 100 and evictable == 0 and waiting == 0").needs_event


@pytest.mark.parametrize(
    "text",
    [
        "req == 7",
        "req != 7",
        "req < 7 or req >= 7",
        "req in (7,)",
        "req not in (7,)",
        "3 in blocks",
        "3 not in blocks",
        "req + 1 == req + 1",
        "-req <= 0",
        "req",
        "req and free",
        "ev == 'preempted'",
    ],
)
def test_a_field_that_is_not_there_makes_every_comparison_false(text: str) -> None:
    assert not parse(text).holds(state(), None)
    assert not parse(text).holds(state(), ev.StepFailed("no such field")) or text.startswith("ev")


def test_not_makes_true_of_what_is_not_there() -> None:
    assert parse("not req == 7").holds(state(), DECODING)


@pytest.mark.parametrize(
    "text",
    [
        "free / waiting > 0",
        "free // waiting == free // waiting",
        "free % waiting != 1",
        "1e308 * 1e308 - 1e308 * 1e308 == free",
        f"{'9' * 400} / 3.5 * free > 0",
        "tokens > 'a'",
        "tokens not in (1, 'a')",
        "tokens in why",
        "tokens + 1 > 0",
        "hit_rate < 1",  # no prompt yet
    ],
)
def test_unlike_things_and_impossible_numbers_compare_false_and_raise_nothing(text: str) -> None:
    assert not parse(text).holds(state())


def test_blanks_and_line_breaks_are_blanks_and_a_text_keeps_its_own() -> None:
    assert parse("  free <\n 10 ").text == "free <  10"
    assert parse("why == 'a  b' or free == 100").text == "why == 'a  b' or free == 100"


# --- what is refused, and how --------------------------------------------------------------------


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    message = refusal("free < 10 and wating > 0")
    assert message.startswith("condition, column 15: 'wating' is not known (did you mean waiting?)")
    for name in ("step", "evictable", "ev", "for_req", "lost_tokens"):
        assert name in message


def test_an_event_that_does_not_exist_is_named() -> None:
    assert "column 7: no event is called 'preempt' (did you mean preempted?)" in refusal(
        'ev == "preempt"'
    )
    assert "'gone'" in refusal("ev in ('evicted', 'gone')")
    assert "'gone'" in refusal("'gone' != ev")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "empty"),
        ("  \n", "empty"),
        ("free <", "column 7: something is missing at the end"),
        ("free = 10", "column 6: cannot read '= 10'; use == to compare"),
        ("free => 10", "use >="),
        ("free<10 && waiting", "use and"),
        ("free<10 || waiting", "use or"),
        ("free<10 waiting>0", "column 9: cannot read 'waiting>0'"),
        ("(free", "'(' was never closed"),
        ("why == 'abc", "unterminated string literal"),
        ("free is 3", "use == and !=, not is"),
        ("free ** 9", "'free ** 9' is not part of a condition"),
        ("free / 0 > 1", "column 8: nothing can be divided by 0"),
        ("free == (1, 2)", "column 9: '(1, 2)' is not part of a condition: a list goes after in"),
        ("'ü' == why.x", "column 8: 'why.x' is not part of a condition: there are no dots"),
        ("free == None", "use numbers, texts, True and False"),
        ("100", "names nothing of the engine"),
        ("1 < 2 or True", "names nothing of the engine"),
        ("free < \x00", "cannot be printed"),
        ("free < '\ud800'", "cannot be printed"),
    ],
)
def test_a_refusal_says_what_is_wrong_and_where(text: str, part: str) -> None:
    assert part in refusal(text)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("free < 'a'", "column 8: free is a number, and 'a' is a text: they never compare; give a"),
        ("'x' == req", "column 1: req is a number, and 'x' is a text"),
        ("not req != 'x'", "column 12: req is a number, and 'x' is a text"),
        ("why < 3", "column 7: why is a text, and 3 is a number: they never compare; give a text"),
        ("0 < free <= '9'", "column 13: free is a number, and '9' is a text"),
        ("why == need", "column 8: why is a text, and need is a number"),
        ("free + 1 == why", "column 1: why is a text, and free + 1 is a number"),
        ("blocks == 7", "column 11: blocks is a list, and 7 is a number"),
        ("timeout > '1'", "timeout is a number"),
        ("recompute == 'yes'", "recompute is a number"),
        ("req in (1, 'a')", "column 12: req is a number, and 'a' is a text"),
        ("why not in ('a', 2)", "column 18: why is a text, and 2 is a number"),
        ("step in 'abc'", "column 9: step is a number, and 'abc' is a text"),
        ("7 in req", "column 6: req is a number; in looks into a list or a text"),
        ("'a' in blocks", "column 1: blocks has numbers in it, and 'a' is a text; give a number"),
        ("blocks in (1, 2)", "column 1: blocks is a list, and no list is in another"),
        ("free + 'a' > 3", "column 8: 'a' is a text; calculate with numbers"),
        ("-why == 3", "column 2: why is a text; calculate with numbers"),
    ],
)
def test_a_comparison_that_its_kinds_keep_from_ever_holding_is_refused(
    text: str, part: str
) -> None:
    assert part in refusal(text)


def test_every_name_has_one_kind_but_for_what_is_a_list_of_some_events_only() -> None:
    names = {*quantities.QUANTITIES, "ev", *quantities.EVENT_FIELDS}
    assert names - {name for name, kind in quantities.KINDS.items() if kind} == {"tokens"}


@pytest.mark.parametrize(
    "text",
    [
        "free+" * 2000 + "1",
        "(" * 10_000,
        "not " * 200 + "free",
        "-" * 900 + "free",
        "(" * 150 + "free" + ")" * 150 + " and " + "-" * 100 + "free",
        "free" + "+1" * 400,
    ],
)
def test_long_and_deep_texts_are_refused_with_the_limit(text: str) -> None:
    message = refusal(text)
    assert f"at most {MAX_LENGTH}" in message or f"at most {MAX_DEPTH}" in message


def test_what_is_too_deep_for_python_is_refused_too() -> None:
    assert "too many nested parentheses" in refusal("free in " + "[" * 300 + "]" * 300)


def test_wide_texts_within_the_limit_are_taken() -> None:
    text = " or ".join(f"req=={i}" for i in range(90))
    assert parse(text).holds(state(), PREEMPTED)


def test_a_condition_is_never_handed_to_python() -> None:
    for module in (conditions, quantities):
        calls = [n for n in ast.walk(parsed(module)) if isinstance(n, ast.Call)]
        called = {call.func.id for call in calls if isinstance(call.func, ast.Name)}
        assert called
        assert not called & {"eval", "exec", "compile", "__import__"}


def parsed(module: ModuleType) -> ast.Module:
    return ast.parse(Path(str(module.__file__)).read_text())


# --- against Python itself -----------------------------------------------------------------------

NUMBERS = ["step", "free", "cached", "waiting", "used", "kv", "req", "need", "behind"]
leaves = st.sampled_from(NUMBERS) | st.integers(-3, 120).map(str) | st.sampled_from(["0.5", "1.5"])
numbers = st.recursive(
    leaves,
    lambda inner: (
        st.builds("({} {} {})".format, inner, st.sampled_from("+-*"), inner)
        | st.builds("({} {} {})".format, inner, st.sampled_from(["/", "//", "%"]), st.just("7"))
        | st.builds("-{}".format, inner)
    ),
    max_leaves=6,
)
texts = st.sampled_from(["why", "ev", "'no_blocks'", "'deferred'"])
orders = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])
members = st.lists(st.integers(0, 9).map(str), min_size=1, max_size=4).map(
    lambda items: f"({', '.join(items)},)"
)
comparisons = (
    st.builds("{} {} {}".format, numbers, orders, numbers)
    | st.builds("{} {} {} {} {}".format, numbers, orders, numbers, orders, numbers)
    | st.builds("{} {} {}".format, numbers, st.sampled_from(["in", "not in"]), members)
    | st.builds("{} {} why".format, texts, st.sampled_from(["in", "not in", "<", ">="]))
)
sentences = st.recursive(
    comparisons,
    lambda inner: (
        st.builds("({} {} {})".format, inner, st.sampled_from(["and", "or"]), inner)
        | st.builds("not ({})".format, inner)
    ),
    max_leaves=5,
)


@settings(max_examples=400, deadline=None)
@given(
    sentence=sentences.map("step == step and ({})".format),
    free=st.integers(0, 60),
    evictable=st.integers(0, 40),
    waiting=st.integers(0, 9),
    step=st.integers(0, 120),
    req=st.integers(0, 9),
    need=st.integers(0, 9),
    why=st.sampled_from(["no_blocks", "max_running"]),
)
def test_conditions_mean_what_they_mean_in_python(
    sentence: str, free: int, evictable: int, waiting: int, step: int, req: int, need: int, why: str
) -> None:
    numbers = dict.fromkeys(("free", "evictable", "promised", "cached_tokens"), 0)
    event = ev.Deferred(req=req, why=why, need=need, behind=waiting, **numbers)
    used = 100 - free - evictable
    names = {
        "step": step,
        "free": free,
        "cached": 55,
        "waiting": waiting,
        "used": used,
        "kv": used / 100,
        "req": req,
        "need": need,
        "behind": waiting,
        "why": why,
        "ev": "deferred",
    }
    now = state(step=step, free=free, evictable=evictable, cached=55, waiting=list(range(waiting)))
    assert parse(sentence).holds(now, event) is bool(eval(sentence, {}, names))


# --- any text at all -----------------------------------------------------------------------------

TAKEN = (
    ast.Constant | ast.Name | ast.BoolOp | ast.UnaryOp | ast.BinOp | ast.Compare | ast.Tuple
    | ast.List | ast.Load | ast.boolop | ast.unaryop | ast.operator | ast.cmpop
)  # fmt: skip
SAFE = """
    free step waiting req ev why blocks reqs kv True False 0 1 7 0.5 1e999 'no_blocks' "decoding"
    and or not in ( ) [ ] , < > <= >= == != + - * / // %
"""
OTHER = """
    . : := = ; # \\ & ~ ** @ { } ' " lambda if else for is await yield None ... 3j b'x' 0777 0x
    f'{free}' __class__ __import__ open print é ０ ﬁnished
"""
SAFE_WORDS = SAFE.split()
OTHER_WORDS = [*OTHER.split(), "\x00", "\n", '"""', "\ud800"]
words = st.lists(st.sampled_from(SAFE_WORDS), max_size=25)
wild = st.lists(st.sampled_from(SAFE_WORDS + OTHER_WORDS), max_size=25)
slips = st.builds(
    lambda text, at, length, word: text[:at] + word + text[at + length :],
    sentences,
    st.integers(0, 40),
    st.integers(0, 3),
    st.sampled_from(["", *SAFE_WORDS, *OTHER_WORDS]),
)


@pytest.mark.filterwarnings("ignore:invalid")  # of the ast.parse below
@settings(max_examples=600, deadline=None)
@given(st.text(max_size=60) | st.builds(" ".join, words) | st.builds("".join, wild) | slips)
def test_any_text_is_refused_in_words_or_answers_true_or_false(text: str) -> None:
    try:
        condition = parse(text)
    except UserError as error:
        assert "\n" not in str(error)
        return
    tree = ast.parse(condition.text, mode="eval").body
    assert all(isinstance(node, TAKEN) for node in ast.walk(tree))
    for event in EVENTS:
        assert condition.holds(state(), event) in (True, False)


INTRUDERS = """
    free.__class__|req.real|free()|open('x')|__import__('os')|blocks[0]|blocks[0:1]|[*blocks]
    lambda: free|[r for r in reqs]|{r for r in reqs}|(r for r in reqs)|{1: free}|{free}
    f'{free}'|f'{free.x}'|1 if free else 2|(x := free)|(yield)|await free|free ** 2|free << 99
    free @ 2|~free|free is 1|b'x'|3j|None|...|params|logprobs|__class__|__doc__|__builtins__
"""
frames = ["{}", "{} == 1", "free < 10 and {}", "req in (1, {})", "-({})", "1 < 2 or {}", "7 in {}"]


@pytest.mark.parametrize("intruder", INTRUDERS.strip().replace("\n    ", "|").split("|"))
@given(first=st.sampled_from(frames), second=st.sampled_from(frames))
@settings(max_examples=20, deadline=None)
def test_nothing_but_the_grammar_gets_in_however_it_is_wrapped(
    intruder: str, first: str, second: str
) -> None:
    refusal(first.format(second.format(f"({intruder})")))
