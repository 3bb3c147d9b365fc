"""Print errors and the results table."""

import functools
import sys
from collections.abc import Callable

from rich.console import Console
from rich.table import Table

from cls_data import DataError
from cls_export import BundleError, ImageError
from cls_models import (
    BackboneError,
    DistillationError,
    FeatureCacheError,
    HardwareError,
    NonfiniteLossError,
    TorchFileError,
)
from cls_train.errors import ConfigError, IdentityError, RunError

USER_ERRORS = (
    BackboneError,
    BundleError,
    ConfigError,
    DataError,
    DistillationError,
    FeatureCacheError,
    HardwareError,
    IdentityError,
    ImageError,
    NonfiniteLossError,
    RunError,
    TorchFileError,
)

EXIT_USER_ERROR = 2

EXIT_INTERRUPTED = 130
"""The exit code of a shell for Ctrl-C. During training `PreemptionCheckpoint` handles Ctrl-C."""


def exit_on_user_error(command: Callable[[], None]) -> Callable[[], None]:
    """Print errors that the user can fix as one message, without a traceback, and exit.

    The exit code is 2 for such an error, and 130 for Ctrl-C.
    """

    @functools.wraps(command)
    def wrapper() -> None:
        try:
            command()
        except USER_ERRORS as error:
            print(f"\n{type(error).__name__}: {error}", file=sys.stderr)
            sys.exit(EXIT_USER_ERROR)
        except KeyboardInterrupt:
            print("\ninterrupted", file=sys.stderr)
            sys.exit(EXIT_INTERRUPTED)

    return wrapper


def print_summary(rows: dict[str, str]) -> None:
    """Print the results of a run as a table."""
    table = Table(title="finished", show_header=False, title_justify="left")
    for name, value in rows.items():
        table.add_row(name, value)

    Console().print(table)
