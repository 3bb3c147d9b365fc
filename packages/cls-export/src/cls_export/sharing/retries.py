"""Repeat what failed for a reason that passes."""

import time
from collections.abc import Callable
from typing import TypeVar

from cls_export.contract.errors import TransferError

RETRY_SECONDS = (1.0, 4.0)
"""Waits before the second and the third attempt."""

Result = TypeVar("Result")


def with_retries(action: Callable[[], Result]) -> Result:
    """Run an action, up to three times while it raises a temporary TransferError."""
    for seconds in RETRY_SECONDS:
        try:
            return action()
        except TransferError as error:
            if not error.is_temporary:
                raise
            time.sleep(seconds)
    return action()
