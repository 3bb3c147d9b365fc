"""Wording of counts and labels in messages."""

from collections.abc import Iterable


def pluralize(count: int, noun: str) -> str:
    """Return a count with its noun, such as "1 row" or "2 rows"."""
    if count != 1:
        noun += "s"
    return f"{count} {noun}"


def quote_all(labels: Iterable[str]) -> str:
    """Return labels in sorted order, quoted so that an empty one is visible."""
    return ", ".join(map(repr, sorted(labels)))
