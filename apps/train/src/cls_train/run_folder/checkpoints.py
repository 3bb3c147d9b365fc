"""Read and verify the checkpoints of a run."""

from pathlib import Path
from typing import Any

from loguru import logger

from cls_callbacks import DamagedCheckpointError, rename_checkpoint, verify_checkpoint
from cls_export.contract.run_layout import RunPaths
from cls_models import TorchFileError, read_torch_file
from cls_train.errors import RunError
from cls_train.run_folder.write_errors import failed_writes


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint without executing anything in it.

    Raises:
        RunError: The file is missing or damaged.
    """
    if not path.is_file():
        raise RunError(f"{path}: no such checkpoint; it is written after the first validation")
    try:
        verify_checkpoint(path)
        checkpoint: dict[str, Any] = read_torch_file(path)
    except (DamagedCheckpointError, TorchFileError) as error:
        raise RunError(str(error)) from error
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror})") from error
    return checkpoint


def check_checkpoint(path: Path) -> None:
    """Verify a checkpoint against its .sha256 file.

    Raises:
        RunError: The bytes have changed, or cannot be read.
    """
    try:
        verify_checkpoint(path)
    except DamagedCheckpointError as error:
        raise RunError(str(error)) from error
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror})") from error


def resumable_checkpoints(run: RunPaths) -> tuple[Path, ...]:
    """Return the paths that a run can resume from, in the order in which they are tried."""
    return run.last, run.next, run.previous


def choose_checkpoint(run: RunPaths) -> Path:
    """Return the newest undamaged checkpoint, with a warning if it is not last.ckpt.

    If a process died while it replaced last.ckpt, next.ckpt takes its place: nothing would write it
    again if training is complete.

    Raises:
        RunError: All are damaged or missing; the message is about last.ckpt.
        RunFailedError: next.ckpt cannot be renamed.
    """
    errors = []
    for path in resumable_checkpoints(run):
        try:
            load_checkpoint(path)
        except RunError as error:
            errors.append(error)
        else:
            if errors:
                logger.warning("{}; resuming from {}", errors[0], path.name)
            if path != run.next:
                return path
            with failed_writes(run):
                rename_checkpoint(run.next, run.last)
            return run.last
    raise errors[0]
