"""The engine in a thread of its own, and what goes in and out of it.

Three threads never wait for each other: the event loop leaves a command with the `Debugger`, which
owns the engine and steps it; after each step what every request got goes back to the loop in one
call; and a client that reads slowly finds it in its own `Generation` whenever it comes.

Clients are let in up to a limit, counted in the event loop alone. Requests that are given up, with
their blocks, are gone before the next step begins.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ..engine.debugger import Debugger
from ..engine.engine import Engine
from ..engine.events import Finished, Sampled, StepRecord
from ..engine.request import Request
from ..engine.sampling import SamplingParams, TokenLogprobs
from ..engine.state import EngineState
from .errors import ApiError, bad_request, engine_failed, queue_full, shutting_down

T = TypeVar("T")

log = logging.getLogger("minisgl_tui.api")

FAILED = "the engine failed while it ran this request; the server's log says why"


@dataclass(slots=True)
class Prompt:
    tokens: list[int]
    params: SamplingParams


@dataclass(slots=True)
class Update:
    """What one choice got in one step. ``cached_tokens`` are those of its prompt."""

    choice: int
    cached_tokens: int = 0
    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)  # one a token, if asked for
    prompt_logprobs: list[TokenLogprobs | None] = field(default_factory=list)  # with the first
    finish_reason: str | None = None
    message: str = ""  # why, for `error`


class Generation:
    """``n`` answers to each of some prompts, under way; choice ``prompt * n + i`` is the i-th.

    Belongs to the event loop, except for ``requests``, which are the engine's.
    """

    def __init__(self, thread: "EngineThread", choices: int) -> None:
        self.requests: list[Request] = []
        self.unended = choices  # requests that the engine has not ended yet
        self._thread = thread
        self._open = set(range(choices))  # choices of which more is wanted
        self._updates: deque[Update] = deque()
        self._failure: ApiError | None = None
        self._news = asyncio.Event()

    async def updates(self) -> AsyncIterator[list[Update]]:
        """All that came since the last look, oldest first, until every choice has ended.

        Raises ApiError when one of them ends in an error, or the server stops.
        """
        while self._open:
            await self._news.wait()
            self._news.clear()
            if self._failure:
                raise self._failure
            batch, self._updates = list(self._updates), deque()
            for update in batch:
                if update.finish_reason:
                    self._open.discard(update.choice)
            if batch:
                yield batch

    def stop(self, choice: int) -> None:
        """This one's answer is complete."""
        if choice in self._open:
            self._open.discard(choice)
            self._thread.end(self, [choice], self._thread.engine.stop)

    def close(self) -> None:
        """No more is wanted of any. May be called again."""
        if self._open:
            self._thread.end(self, sorted(self._open), self._thread.engine.abort)
            self._open.clear()

    def put(self, update: Update) -> None:
        if update.choice not in self._open:
            return
        if update.finish_reason in ("stop", "length", None):
            self._updates.append(update)
            self._news.set()
        else:
            log.error("a request ended with %s: %s", update.finish_reason, update.message)
            self.fail(engine_failed(FAILED))

    def fail(self, error: ApiError) -> None:
        self._failure = self._failure or error
        self._news.set()


class EngineThread:
    """Runs ``engine`` for many clients, until `stop`.

    At most ``max_queued`` requests beyond those that may run at a time are taken in. ``debugger``
    is the switchboard of the same engine: whoever wants to watch or pause it presses there.
    """

    def __init__(self, engine: Engine, max_queued: int) -> None:
        self.engine = engine
        self.limit = engine.scheduler.max_running + max_queued
        self.live = 0  # requests handed over and not ended
        self.error: str | None = None  # what ended the thread, if anything did
        self.debugger = Debugger(engine, on_error=log.error, stops_when_idle=False)
        self._closing = False
        self._generations: set[Generation] = set()
        self._questions: set[asyncio.Future[Any]] = set()
        self._routes: dict[int, tuple[Generation, int]] = {}  # by request; the engine's thread
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="engine")

    @property
    def state(self) -> EngineState:
        """The picture of the engine, for `ask`: to be read in the engine's thread only."""
        assert self.debugger.state
        return self.debugger.state

    # --- the event loop --------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to serve the running event loop."""
        self._loop = asyncio.get_running_loop()
        self.engine.log.listen(self._follow)
        self.debugger.play()
        self._thread.start()

    def generate(
        self,
        prompts: Sequence[Prompt],
        n: int = 1,
        *,
        priority: int = 0,
        salt: str = "",
        name: str = "",
    ) -> Generation:
        """Hand over ``n`` requests for each prompt, all under the ``name`` of their answer.

        Raises RequestRefused for a prompt that can never run, ApiError when there is no room.
        """
        for prompt in prompts:
            self.engine.check(prompt.tokens)  # looks at the settings alone
        count = len(prompts) * n
        self._let_in(count)
        generation = Generation(self, count)
        self._generations.add(generation)
        self.live += count
        options = {"priority": priority, "salt": salt, "name": name}
        self.debugger.call(lambda: self._submit(generation, prompts, n, options))
        return generation

    def end(
        self, generation: Generation, choices: Sequence[int], end: Callable[[int], bool]
    ) -> None:
        """Have ``end`` end those requests before the next step."""

        def carry_out() -> None:
            for choice in choices:
                if choice < len(generation.requests):
                    end(generation.requests[choice].id)

        self.debugger.call(carry_out)

    def check_count(self, count: int) -> None:
        """400 for more answers at once than there is ever room for."""
        if count > self.limit:
            raise bad_request(
                f"{count} answers are asked for at once; this server takes {self.limit} at a time: "
                "send fewer prompts or a lower n"
            )

    async def ask(self, question: Callable[[], T]) -> T:
        """The answer to ``question``, put in the engine's thread between two steps."""
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def settle(set_outcome: Callable[[], None]) -> None:
            if not answer.done():
                set_outcome()

        def carry_out() -> None:
            try:
                value = question()
            except Exception as error:
                self._tell(settle, lambda error=error: answer.set_exception(error))
            else:
                self._tell(settle, lambda: answer.set_result(value))

        if not self._thread.is_alive():
            raise shutting_down()
        self._questions.add(answer)
        answer.add_done_callback(self._questions.discard)
        self.debugger.call(carry_out)
        return await answer

    async def drain(self, seconds: float) -> None:
        """Take nothing in any more; end what is still running after ``seconds``."""
        self._closing = True
        deadline = asyncio.get_running_loop().time() + seconds
        while self.live and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.02)
        self._fail_all(shutting_down())

    def stop(self) -> None:
        """End the thread, after the step in progress. May be called again."""
        self._closing = True
        self.debugger.close()
        if self._thread.is_alive():
            self._thread.join()

    def _let_in(self, count: int) -> None:
        if self.error:
            raise engine_failed("the engine has stopped; restart the server")
        if self._closing:
            raise shutting_down()
        self.check_count(count)
        if self.live + count > self.limit:
            raise queue_full(self.limit)

    def _deliver(self, batch: list[tuple[Generation, Update]]) -> None:
        for generation, update in batch:
            if update.finish_reason:
                self._count_ended(generation, 1)
            generation.put(update)

    def _lost(self, generation: Generation, count: int, error: ApiError) -> None:
        self._count_ended(generation, count)
        generation.fail(error)

    def _count_ended(self, generation: Generation, count: int) -> None:
        self.live -= count
        generation.unended -= count
        if not generation.unended:
            self._generations.discard(generation)

    def _fail_all(self, error: ApiError) -> None:
        for generation in tuple(self._generations):
            generation.fail(error)

    def _ended(self) -> None:
        """The thread is gone; nobody need wait for it any longer."""
        error = engine_failed("the engine has stopped")
        self._fail_all(error)
        for answer in tuple(self._questions):
            if not answer.done():
                answer.set_exception(error)

    # --- the engine's thread ---------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self.debugger.run()
        except BaseException as error:
            self.error = f"{type(error).__name__}: {error}"
            raise
        finally:
            self._tell(self._ended)

    def _submit(
        self, generation: Generation, prompts: Sequence[Prompt], n: int, options: dict[str, Any]
    ) -> None:
        try:
            for prompt in prompts:
                requests = self.engine.submit_samples(prompt.tokens, prompt.params, n, **options)
                for request in requests:
                    self._routes[request.id] = (generation, len(generation.requests))
                    generation.requests.append(request)
        except Exception as error:
            lost = len(prompts) * n - len(generation.requests)
            log.error("a request was not taken: %s: %s", type(error).__name__, error)
            self._tell(self._lost, generation, lost, engine_failed(FAILED))

    def _follow(self, record: StepRecord) -> None:
        """Tell the event loop, in one call, what everybody got."""
        news: dict[int, Update] = {}
        for event in record.events:
            if isinstance(event, Sampled):
                logprobs = event.logprobs or [None] * len(event.reqs)
                for req, token, logprob in zip(event.reqs, event.tokens, logprobs, strict=True):
                    if update := self._update(news, req):
                        update.tokens.append(token)
                        if logprob:
                            update.logprobs.append(logprob)
            elif isinstance(event, Finished) and (update := self._update(news, event.req)):
                update.finish_reason, update.message = event.reason, event.message
        if news:
            routes = self._routes
            batch = [(routes[req][0], update) for req, update in news.items()]
            for req, update in news.items():
                if update.finish_reason:
                    del routes[req]
            self._tell(self._deliver, batch)

    def _update(self, news: dict[int, Update], req: int) -> Update | None:
        """The update of request ``req`` in ``news``, or None if it is not one of ours."""
        route = self._routes.get(req)
        if route is None:
            return None
        if req not in news:
            generation, choice = route
            request = generation.requests[choice]
            update = news[req] = Update(choice, request.cached_tokens)
            if request.prompt_logprobs and len(request.tokens) == request.prompt_len + 1:
                update.prompt_logprobs = request.prompt_logprobs
        return news[req]

    def _tell(self, hear: Callable[..., object], *about: object) -> None:
        """Have the event loop call ``hear``; once the loop has ended nobody is left to hear it."""
        assert self._loop
        try:
            self._loop.call_soon_threadsafe(hear, *about)
        except RuntimeError:
            if not self._loop.is_closed():
                raise
