"""The commit that a job runs."""

from pathlib import Path

from cls_launch.errors import LaunchError
from cls_train.run_folder.provenance import get_code_commit

_DIRTY = "-dirty"


def read_commit(folder: Path, *, allow_dirty: bool) -> str:
    """Return the commit of a checkout, with `-dirty` for local changes.

    Raises:
        LaunchError: There are local changes or no commit, and `allow_dirty` is false.
    """
    commit = get_code_commit(folder)
    if commit is None:
        if allow_dirty:
            return "unknown"
        raise LaunchError(
            f"{folder} has no git commit, so nobody could tell what the job ran; commit, or set "
            "allow_dirty=true"
        )
    if commit.endswith(_DIRTY) and not allow_dirty:
        raise LaunchError(
            "the checkout has uncommitted changes, which the job would not run; commit them "
            "(git status lists them), or set allow_dirty=true"
        )
    return commit
