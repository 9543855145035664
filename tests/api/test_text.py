"""Stop strings: found wherever tokens begin and end, never shown, and nothing else is eaten."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from minisgl_tui.api.text import StopStrings

STOPS = st.lists(st.text("ab", min_size=1, max_size=5), min_size=1, max_size=3)


def run(stops: list[str], pieces: list[str], include: bool = False) -> tuple[list[str], bool]:
    matcher = StopStrings(stops, include)
    shown: list[str] = []
    for piece in pieces:
        shown.append(matcher.feed(piece))
        if matcher.matched:
            return shown, True
    return [*shown, matcher.release()], False


@given(STOPS, st.lists(st.text("ab", max_size=4), max_size=8))
def test_the_text_ends_before_the_stop_string_that_is_completed_first(
    stops: list[str], pieces: list[str]
):
    whole = "".join(pieces)
    ends = [(at + len(stop), at) for stop in stops if (at := whole.find(stop)) >= 0]
    shown, matched = run(stops, pieces)
    assert matched == bool(ends)
    assert "".join(shown) == (whole[: min(ends)[1]] if ends else whole)
    included, _ = run(stops, pieces, include=True)
    assert "".join(included) == (whole[: min(ends)[0]] if ends else whole)


@given(STOPS, st.text("ab", max_size=12))
def test_only_what_could_become_a_stop_string_is_held_back(stops: list[str], text: str):
    matcher = StopStrings(stops)
    shown = "".join(map(matcher.feed, text))
    if not matcher.matched:
        held = text[len(shown) :]
        assert not held or any(stop.startswith(held) for stop in stops)
        longer = [text[at:] for at in range(len(shown))]
        assert not any(stop.startswith(end) for stop in stops for end in longer if end)


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        (["the EN", "T", "END."], ["the ", "ENT", ""]),
        (["END"], [""]),
        (["E", "N", "E", "N", "D"], ["", "", "EN", "", ""]),
    ],
)
def test_examples(pieces: list[str], shown: list[str]):
    assert run(["END"], pieces) == (shown, True)
