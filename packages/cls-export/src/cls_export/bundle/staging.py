"""Staging of a bundle, which replaces an older bundle as a whole."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cls_export.contract.bundle_layout import GOLDEN_FOLDER, LABELS_FILE, MODEL_FILE
from cls_export.contract.errors import BundleError

_BUNDLE_FILES = {MODEL_FILE, LABELS_FILE, GOLDEN_FOLDER}


@contextmanager
def staged_bundle(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a draft folder with an empty golden/, which becomes `folder` if the block succeeds.

    The parent of the draft is a temporary folder, deleted with everything in it.

    Raises:
        BundleError: `folder` exists and is not a bundle.
    """
    target = Path(folder).resolve()
    _check_replaceable(target)
    target.parent.mkdir(parents=True, exist_ok=True)

    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".bundle-") as scratch:
        draft = Path(scratch) / target.name
        (draft / GOLDEN_FOLDER).mkdir(parents=True)
        yield draft
        _replace(target, draft, Path(scratch) / "replaced")


def _check_replaceable(target: Path) -> None:
    """Refuse to replace a folder with files that do not belong to a bundle."""
    if not target.exists():
        return
    if not target.is_dir():
        raise BundleError(f"{target} is a file; choose a folder for the bundle")
    foreign = sorted({path.name for path in target.iterdir()} - _BUNDLE_FILES)
    if foreign:
        raise BundleError(
            f"{target} contains {foreign[0]!r}, so it is not a bundle; choose another folder"
        )


def _replace(target: Path, draft: Path, backup: Path) -> None:
    """Rename the draft to the target; if that fails, restore the old bundle."""
    if target.exists():
        target.rename(backup)
    try:
        draft.rename(target)
    except OSError:
        if backup.exists():
            backup.rename(target)
        raise
