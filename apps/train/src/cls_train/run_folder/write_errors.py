"""Describe failed writes: the path, the reason, and what to do."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from cls_export.contract.run_layout import RunPaths
from cls_train.errors import RunError, RunFailedError

_ADVICE = {
    errno.ENOSPC: "Free some space",
    errno.EDQUOT: "Free some space, or raise the quota",
    errno.EFBIG: "Raise the limit on file sizes (ulimit -f)",
    errno.EROFS: "Make the folder writable, or choose another run.root",
    errno.EACCES: "Make the folder writable, or choose another run.root",
    errno.EPERM: "Make the folder writable, or choose another run.root",
    errno.EMFILE: "Raise the limit on open files, for example with: ulimit -n 4096",
    errno.ENFILE: "Close other programs, or raise the system's limit on open files",
    errno.ENOMEM: "Free some memory",
}

WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)
"""Errors of flock on file systems that do not support it, such as some network and FUSE mounts."""

_WRONG_PATH = (
    errno.EEXIST,
    errno.EINVAL,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOTDIR,
)
"""The name of the folder is wrong, rather than the state of the disk."""


@contextmanager
def failed_writes(run: RunPaths) -> Iterator[None]:
    """Turn an OSError of the block into a RunFailedError that says how to go on."""
    try:
        yield
    except OSError as error:
        raise RunFailedError(
            f"{describe_os_error(error, run)}, then repeat the command with "
            f"run.name={run.path.name} to go on from there"
        ) from error


def describe_os_error(error: OSError, run: RunPaths) -> str:
    """Return `PATH: reason. What to do`, without a full stop at the end."""
    advice = _ADVICE.get(error.errno or 0, "Fix the cause")
    if error.strerror is None:  # one of our own errors, or of a loader worker
        return f"{_drop_traceback(str(error))}. {advice}"
    path = os.fsdecode(error.filename or run.path)  # TensorBoard opens files by bytes
    return f"{path}: {error.strerror}. {advice}"


def _drop_traceback(message: str) -> str:
    """Return the last line of an error that torch has passed on from a loader worker."""
    if "Original Traceback" not in message:
        return message
    return message.strip().splitlines()[-1]


def describe_creation_error(error: OSError, run: RunPaths) -> RunError:
    """Return the error of a run folder that cannot be created."""
    if error.errno in _WRONG_PATH:
        return RunError(
            f"{run.path}: the run folder cannot be created ({error.strerror}); "
            "choose another run.root or run.name"
        )
    return RunFailedError(
        f"{run.path}: the run folder cannot be created ({error.strerror}). "
        f"{_ADVICE.get(error.errno or 0, 'Fix the cause')}, then repeat the command"
    )
