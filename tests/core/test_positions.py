"""Positions as people write them."""

import pytest
from helpers import Bench
from minisgl_tui.engine.errors import UserError
from minisgl_tui.engine.events import Finished, Sampled
from minisgl_tui.engine.history import History
from minisgl_tui.engine.positions import parse


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.history = History.live(bench.state)  # pyright: ignore[reportAttributeAccessIssue]
    history: History = bench.history  # pyright: ignore[reportAttributeAccessIssue]
    bench.engine.log.listen(lambda record: history.append(record, bench.state))
    bench.submit([1] * 9, max_tokens=3)
    bench.step()
    bench.submit([2] * 9, max_tokens=30)
    bench.step(4)
    return bench


def test_every_form_finds_its_event(bench: Bench) -> None:
    history: History = bench.history  # pyright: ignore[reportAttributeAccessIssue]
    assert parse("start", history) == history.start
    assert parse(" END ", history) == history.end == parse("5", history)
    assert parse("2:0", history) == (2, 0)
    assert parse("0", history) == (0, 0)
    between = parse("1", history)
    assert history.state_at(between).waiting == [1]  # submitted after step 1, so it belongs to it
    assert parse("0%", history) == history.start and parse("100 %", history) == history.end
    assert history.records_until(parse("50%", history)) == round(len(history) / 2)
    first = parse("req 1 first-token", history)
    event = history.event(first)
    assert isinstance(event, Sampled) and 1 in event.reqs
    assert history.state_at(first).requests[1].output == [event.tokens[event.reqs.index(1)]]
    ended = history.event(parse("req #0 finished", history))
    assert isinstance(ended, Finished) and ended.req == 0
    assert parse("request 1 submitted", history) == between


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "'' is no position; give 120:7, 120, 50%"),
        ("1:2:3", "'1:2:3' is no position"),
        ("-1", "'-1' is no position"),
        ("9", r"there is no step 9; the recording goes to 5:\d+"),
        ("5:99", r"there is no event 5:99; step 5 has 0 to \d+"),
        ("101%", "'101%' is more than the whole; give 0% to 100%"),
        ("req 7 finished", "there is no request 7 in the recording"),
        ("req 1 finished", r"request 1 has come to no finished by 5:\d+"),
        ("req 1 born", "'born' is nothing that happens to a request; give one of submitted, first"),
    ],
)
def test_what_is_not_there_is_refused_in_one_line(bench: Bench, text: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as refused:
        parse(text, bench.history)  # pyright: ignore[reportAttributeAccessIssue]
    assert "\n" not in str(refused.value)
