"""Turn the errors of a run into one message and an exit code.

Importing this module is cheap. The classes of the errors need PyTorch, so they are imported when a
command does.
"""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cls_export.contract.commands import run_command
from cls_train.errors import ConfigError, IdentityError, RunError, RunFailedError

_FAILED = (errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOSPC)
"""Reasons for which data cannot be read or stored although the input is correct."""


def run_app_command(name: str, command: Callable[[], int | None]) -> int:
    """Run a command that raises `ConfigError` or `RunFailedError`, and return its exit code."""
    return run_command(name, command, wrong_input=(ConfigError,), failed=(RunFailedError,))


@contextmanager
def explained_errors(prefix: str = "") -> Iterator[None]:
    """Turn every error that a user can cause into `ConfigError` or `RunFailedError`.

    Args:
        prefix: Put before each message, to name one run of a sweep.

    Raises:
        ConfigError: Wrong settings, data, weights, or run folders.
        RunFailedError: The work failed on correct input.
    """
    import torch

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

    try:
        yield
    except (RunFailedError, IdentityError, NonfiniteLossError) as error:
        raise RunFailedError(f"{prefix}{error}") from error
    except torch.OutOfMemoryError as error:
        raise RunFailedError(
            f"{prefix}the GPU is out of memory; set a smaller data.batch_size, or another "
            f"trainer.precision ({error})"
        ) from error
    except (
        BackboneError,
        BundleError,
        ConfigError,
        DataError,
        DistillationError,
        FeatureCacheError,
        HardwareError,
        ImageError,
        RunError,
        TorchFileError,
    ) as error:
        is_failed_work = isinstance(error.__cause__, OSError) and error.__cause__.errno in _FAILED
        error_class = RunFailedError if is_failed_work else ConfigError
        raise error_class(f"{prefix}{error}") from error
