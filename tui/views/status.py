"""The two lines at the top, and the line of hints above the keys."""

from collections import Counter

from ...engine.debugger import Mode
from ...engine.events import PHASES
from ...engine.wording import plural
from ..actions import key
from ..changes import kind_of
from ..pace import SLOW_TICK
from ..selection import Target, called
from ..sources.base import Link
from ..stops import GLYPH as STOP_GLYPH
from ..store import Store
from ..text import Line, bar, cell_len, clip, plain

RATES: tuple[float | None, ...] = (0.5, 1, 2, 4, 8, 16, None)

# The phases of a step as they are listed: where room is short, the longest is there.
PARTS = sorted(PHASES, key=lambda phase: phase != "forward")
SHORTEST = 7  # cells of the pool's bar, if it costs only the total


def rate_text(rate: float | None) -> str:
    return "at full speed" if rate is None else f"{rate:g} steps/s"


def mode_span(store: Store) -> tuple[str, str]:
    if store.failure:
        return "✗ failed", "bad"
    if store.over:
        return "■ the run ended", "dim"
    if store.link and (trouble := link_trouble(store.link)):
        return f"◌ {trouble}", "dim"
    if store.played_out:
        return "■ end of the recording", "dim"
    if store.mode is Mode.PLAYING:
        return f"▶ playing {rate_text(store.rate)}", "good"
    if store.mode is Mode.STEPPING:
        return "▸ stepping", "good"
    return ("■ done", "dim") if store.done and not store.link else ("⏸ paused", "warn")


def link_trouble(link: Link) -> str:
    """Why what shows may be out of date, in a few words; empty if it is not."""
    if link.lost:
        return f"no connection, attempt {link.attempt}" if link.attempt else "no connection"
    return f"no heartbeat for {link.silent} s" if link.silent else ""


def spread(left: Line, right: Line, width: int) -> Line:
    """``left`` and ``right`` at the two ends; ``left`` gives way where there is no room."""
    room = width - len(plain(right)) - 2
    kept: Line = []
    for text, style in left:
        piece = clip(text, room)
        kept.append((piece, style))
        room -= len(piece)
        if len(piece) < len(text) or room <= 0:
            break
    gap = width - len(plain(kept)) - len(plain(right))
    return [*kept, (" " * max(1, gap), "text"), *right]


def status_lines(store: Store, width: int) -> list[Line]:
    """Model, mode and step; then the pool, the queues and the hit rate."""
    info, state, cells = store.info, store.state, store.cells
    about = [part for part in (info.architecture, info.dtype, info.device) if part]
    left: Line = [(f" {info.name}", "title"), *((f" · {part}", "dim") for part in about)]
    right: Line = [mode_span(store), ("   step ", "dim"), (f"{state.step} ", "title")]
    if not store.follows:
        right = _past(store)
    if store.records_to:
        right[:0] = [("● REC   ", "bad")]
    if store.link:
        where = store.link.url.removeprefix("http://")
        left = [(" LIVE ", "accent"), (where, "title"), (" ·", "dim"), *left]
    if store.recording:
        left = [(" REPLAY ", "accent"), (store.recording.name, "title"), (" ·", "dim"), *left]
        if store.follows:
            right[-1:] = [(str(state.step), "title"), (f" of {store.last_step} ", "dim")]
    if store.slow and store.mode is Mode.PLAYING:
        noted: Line = [(f"drawn at {1 / SLOW_TICK:.0f} Hz   ", "warn"), *right]
        if cell_len(plain([*left[:2], *noted])) + 2 <= width:  # the name of what shows comes first
            right = noted
    return [spread(left, right, width), _pool_line(store, cells.used, width)]


def _past(store: Store) -> Line:
    """The position looked at, and how far the run has come meanwhile."""
    shown: Line = [("◂ ", "accent"), (str(store.position), "title")]
    shown.append((f" of {store.last_step} ", "dim"))
    if store.reading is not None:
        shown.append((f" reading {store.reading:.0%} ", "warn"))
    if store.over:
        shown.append(("■ the run ended ", "dim"))
    elif not store.replays:
        behind = store.last_step - store.position.step
        playing = store.mode is not Mode.PAUSED
        stale = link_trouble(store.link) if store.link else ""
        end = f"◌ {stale}" if stale else "LIVE" if playing else "paused"
        style = "dim" if stale else "good" if playing else "warn"
        shown.append((f" {end} +{behind:,} ", style))
    return shown


def _pool_line(store: Store, used: int, width: int) -> Line:
    state, total = store.state, store.config.num_blocks
    evictable = total - used - state.free
    hit = store.hit_rate
    numbers: Line = [
        (f" {used:,}", "held"),
        (" used  ", "dim"),
        (f"{evictable:,}", "evictable"),
        (" evictable  ", "dim"),
        (f"{state.free:,}", "text"),
        (" free", "dim"),
    ]
    right: Line = [
        ("run ", "dim"),
        (str(len(state.running)), "text"),
        ("  wait ", "dim"),
        (str(len(state.waiting)), "warn" if state.waiting else "text"),
        ("  hit ", "dim"),
        ("–" if hit is None else f"{hit:.0f}%", "text"),
        (" ", "dim"),
    ]
    findings = sum(finding.step <= state.step for finding in store.lints.findings())
    if findings:
        right[-1:] = [(f"  ⚠ {findings} ", "warn")]
    if len(plain(numbers)) + len(plain(right)) + 2 > width:
        numbers, right = _closer(numbers), _closer(right)
    # Room for the widest numbers, so that the bar keeps its length while they change.
    of = f" of {total:,}"
    widest = 3 * len(f"{total:,}") + len("  used   evictable   free")
    room = width - widest - len("run 999  wait 999  hit 100% ") - len(" kv  ") - 3
    if room - len(of) >= SHORTEST:
        numbers.append((of, "dim"))
        room -= len(of)
    parts = ((used, "█", "held"), (evictable, "▒", "evictable"), (state.free, "░", "faint"))
    drawn = bar(parts, max(0, min(60, room)))
    left: Line = [(" kv ", "dim"), *drawn, *numbers] if drawn else numbers
    return spread(left, right, width)


def _closer(line: Line) -> Line:
    return [(text.replace("  ", " "), style) for text, style in line]


def hint_line(store: Store, width: int, meant: Target | None = None) -> Line:
    """The selection; else what to do when nothing goes on; else the step just taken. ``meant`` is
    what a question would be about."""
    text, style = _hint(store, width - 2, meant)
    return [(" " + clip(text, width - 2), style)]


def _hint(store: Store, width: int, meant: Target | None) -> tuple[str, str]:
    state = store.state
    if store.hunting:
        return store.hunting, "accent"
    if store.link and store.link.lost:
        return _lost(store.link), "bad"
    if store.selected is not None:
        words, keys = f"◆ {store.links.words}", f" · {key('clear')} clears"
        if meant is not None and meant != store.selected:
            keys = f" · {key('why')} asks about {called(meant)}"
        return clip(words, width - cell_len(keys)) + keys, "accent"
    if not store.follows and not store.failure:
        back, on, live = key("back"), key("step"), key("live")
        keys = f"{back} {on} go back and on, {live} to the end"
        return f"this was so after {_last_event(store)} · {keys}", "accent"
    if store.over:
        back, on = key("back"), key("other_run-1")
        return f"this run is over: {store.over} · {back} goes back in it, {on} to the next", "dim"
    if store.failure:
        return "the engine has stopped; what it held last stays readable · q quits", "bad"
    if store.played_out:
        return _end_of(store), "good" if store.done else "warn"
    control = _control(store.link) if store.link else ""
    if store.link and store.idle:
        return f"{control}the server has no requests: what comes to it will show here", "accent"
    if store.done:
        return (
            f"{_outcomes(store)}: press {key('prompt')} for another, {key('quit')} to quit",
            "good",
        )
    if not state.requests and store.idle:
        return f"no requests yet: press {key('prompt')} to send a prompt", "accent"
    if state.step == 0 and store.mode is Mode.PAUSED:
        step, play, help = key("step"), key("play"), key("help")
        return f"press {step} to take the first step, {play} to run, {help} for help", "accent"
    stop = store.stops.why(state) if store.mode is Mode.PAUSED else ""
    if stop:
        return f"{control}{STOP_GLYPH} {stop}", "bad"
    if control:
        return control + step_summary(store, width - cell_len(control)), "warn"
    return step_summary(store, width), "dim"


def _lost(link: Link) -> str:
    when = f"attempt {link.attempt + 1} in {link.next_in} s" if link.next_in else "trying again"
    return f"{when}; what was seen can be read · {link.lost}"


def _control(link: Link) -> str:
    """Who may stop and step the server, if anybody does, to stand before something else."""
    if not link.holder:
        return ""
    who = "you hold the server" if link.mine else f"held by {link.holder}"
    return f"{who}, {link.lease} s · "


def _last_event(store: Store) -> str:
    """The last event that the picture includes, in a word."""
    event = store.past.event(store.position)
    return f"{store.position} {kind_of(event)}" if event else "nothing"


def _end_of(store: Store) -> str:
    """Where a recording leaves its requests, and why it goes no further."""
    assert store.recording
    notes = store.recording.notes
    over = _outcomes(store) if store.done else f"{plural(store.live, 'request')} not ended"
    if not len(store.past):
        over = "no steps in it"
    return f"the recording ends here, {over}" + (f" ({'; '.join(notes)})" if notes else "")


def _outcomes(store: Store) -> str:
    """How the requests ended, as far as they are kept."""
    reasons = Counter(store.state.requests[r].finish_reason for r in store.state.finished)
    errors, aborted = reasons["error"], reasons["abort"]
    if not errors and not aborted:
        return "all requests finished"
    parts = [f"{reasons.total() - errors - aborted} finished"]
    if aborted:
        parts.append(f"{aborted} aborted")
    if errors:
        parts.append(f"{errors} ended with an error")
    return ", ".join(parts)


def step_summary(store: Store, width: int = 999) -> str:
    """What the last step did and how long its parts took, as many of them as fit."""
    state = store.state
    if not state.step:
        return ""
    prefills = state.prefills
    decodes, prefill = len(state.rows) - len(prefills), sum(row.count for row in prefills)
    text = f"step {state.step}: {decodes} decode + {prefill} prefill tokens"
    if not state.timings or not store.past.ends_record(store.position):
        return text  # in mid-step the times are those of the step before
    text += f" in {store.guessed}{1e3 * state.step_seconds:.1f} ms"
    parts = [f"{k} {1e3 * state.timings[k]:.1f}" for k in PARTS if k in state.timings]
    while parts and cell_len(text) + cell_len(" · ".join(parts)) + 3 > width:
        parts.pop()
    return text + (f" ({' · '.join(parts)})" if parts else "")
