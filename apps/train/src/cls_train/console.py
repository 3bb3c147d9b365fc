"""What a user sees at the end: a table, or one clear message."""

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
    NotFiniteLossError,
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
    NotFiniteLossError,
    RunError,
)

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130
"""As a shell reports Ctrl-C; in the fit, where there is something to save, `cls_callbacks.PreemptionCheckpoint` sees to it."""


def exit_on_user_error(command: Callable[[], None]) -> Callable[[], None]:
    """Turn an error that the user can act on into one message and exit code 2, and Ctrl-C into exit code 130."""

    @functools.wraps(command)
    def wrapped() -> None:
        try:
            command()
        except USER_ERRORS as error:
            print(f"\n{type(error).__name__}: {error}", file=sys.stderr)
            sys.exit(EXIT_USER_ERROR)
        except KeyboardInterrupt:
            print("\ninterrupted", file=sys.stderr)
            sys.exit(EXIT_INTERRUPTED)

    return wrapped


def print_summary(rows: dict[str, str]) -> None:
    """Print the run's last table."""
    table = Table(title="finished", show_header=False, title_justify="left")
    for name, value in rows.items():
        table.add_row(name, value)
    Console().print(table)
