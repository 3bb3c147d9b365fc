"""Checks of arguments that are numbers."""

from numbers import Integral
from typing import Any, Final

MAX_THREADS: Final = 1024
"""More take gigabytes for their stacks, and onnxruntime starts all of them at once."""


def check_count(name: str, value: Any, *, largest: int | None = None, or_none: bool = False) -> int:
    """Return a whole number of at least 1 as an int.

    Args:
        name: The argument, for the message.
        value: A Python or NumPy integer.
        largest: The largest accepted number.
        or_none: Whether the message mentions that the argument may be None.

    Raises:
        ValueError: Another type, or out of range. A float is refused even if it is whole.
    """
    is_whole = isinstance(value, Integral) and not isinstance(value, bool)
    if is_whole and value >= 1 and (largest is None or value <= largest):
        return int(value)

    limits = "at least 1" if largest is None else f"1 to {largest}"
    alternative = ", or None" if or_none else ""
    raise ValueError(f"{name} must be a whole number of {limits}{alternative}, got {value!r}")
