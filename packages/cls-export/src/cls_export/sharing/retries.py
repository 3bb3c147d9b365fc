"""Repeat what failed for a reason that passes."""

import time
from collections.abc import Callable
from typing import TypeVar

from cls_export.contract.errors import TransferError

RETRY_SECONDS = (1.0, 4.0)
"""Waits before the second and the third attempt, unless the server asks to wait longer."""

MAX_WAIT_SECONDS = 60.0
"""If the server asks for more, the error is raised at once."""

Result = TypeVar("Result")


def with_retries(action: Callable[[], Result]) -> Result:
    """Run an action, up to three times while it raises a temporary TransferError."""
    for seconds in RETRY_SECONDS:
        try:
            return action()
        except TransferError as error:
            asked = error.wait_seconds or 0.0
            if not error.is_temporary or asked > MAX_WAIT_SECONDS:
                raise
        time.sleep(max(seconds, asked))
    return action()
