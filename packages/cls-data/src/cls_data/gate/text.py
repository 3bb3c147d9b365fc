"""Wording of counts and labels in messages."""

from collections.abc import Iterable


def pluralize(count: int, noun: str) -> str:
    """Return a count with its noun, such as "1 row" or "2 rows"."""
    if count != 1:
        noun += "s"
    return f"{count} {noun}"


def count_classes(count: int) -> str:
    """Return a number of classes, such as "1 class" or "2 classes"."""
    return "1 class" if count == 1 else f"{count} classes"


def quote_all(labels: Iterable[str]) -> str:
    """Return labels in sorted order, quoted so that an empty one is visible."""
    return ", ".join(map(repr, sorted(labels)))
