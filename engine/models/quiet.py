"""Transformers without a word to the terminal: the screens own that."""

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def quiet(transformers: Any, progress: Callable[[float], None] | None = None) -> Iterator[None]:
    """While open, warnings, logs and progress bars of ``transformers`` are not shown.

    ``progress`` gets the fraction done of each of its progress bars instead. The settings are the
    process's, so they are put back on leaving.
    """
    logging = transformers.utils.logging

    def bar(factory: Any, given: tuple[Any, ...], settings: dict[str, Any]) -> Any:
        items = given[0] if given else settings.get("iterable")
        if items is None or progress is None:
            return logging.EmptyTqdm(*given, **settings)
        return _counted(list(items), progress)

    verbosity, hook = logging.get_verbosity(), logging.set_tqdm_hook(bar)
    logging.set_verbosity(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        logging.set_tqdm_hook(hook)


def _counted(items: list[Any], progress: Callable[[float], None]) -> Iterable[Any]:
    for done, item in enumerate(items):
        progress(done / len(items))
        yield item
