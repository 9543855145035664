"""Words that go with a count, for all sentences."""


def agrees(count: int, one: str, many: str) -> str:
    """The verb for ``count`` of something.

    >>> agrees(1, "is", "are"), agrees(0, "is", "are")
    ('is', 'are')
    """
    return one if count == 1 else many


def times(count: int) -> str:
    """
    >>> times(1), times(2)
    ('once', '2 times')
    """
    return "once" if count == 1 else f"{count:,} times"


def plural(count: int, noun: str) -> str:
    """
    >>> plural(1, "block"), plural(2, "block")
    ('1 block', '2 blocks')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
