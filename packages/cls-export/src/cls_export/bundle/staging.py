"""Staging of a bundle, which replaces an older bundle in one step."""

import ctypes
import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cls_export.bundle.model_card import hash_model_card
from cls_export.contract.bundle_layout import (
    CARD_FILE,
    GOLDEN_FILE,
    GOLDEN_FOLDER,
    LABELS_FILE,
    MODEL_FILE,
)
from cls_export.contract.errors import BundleError
from cls_export.contract.files import (
    delete,
    draft_path,
    draft_prefix,
    find_stale_drafts,
    sha256_of_file,
)
from cls_export.contract.labels_mapping import LabelsMapping
from cls_export.runtime.bundle_files import REPLACED_SUFFIX

_BUNDLE_FILES = {MODEL_FILE, LABELS_FILE, GOLDEN_FOLDER, CARD_FILE}
_DESKTOP_FILES = {".DS_Store", "Thumbs.db", "desktop.ini"}
"""File managers write them into the folders that they show."""

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP)
_NOT_EMPTY = (errno.ENOTEMPTY, errno.EEXIST)


@contextmanager
def staged_bundle(folder: str | os.PathLike[str], labels: LabelsMapping) -> Iterator[Path]:
    """Yield a draft folder with an empty golden/, which becomes `folder` if the block succeeds.

    The block writes model.onnx, the golden set, and the model card. Then labels_mapping.json is
    written with their hashes, and the draft replaces `folder` as in `staged_folder`.

    Raises a BundleError or OSError like `staged_folder`.
    """
    with staged_folder(folder) as draft:
        (draft / GOLDEN_FOLDER).mkdir()
        yield draft
        card = draft / CARD_FILE
        complete = labels.with_file_hashes(
            model_sha256=sha256_of_file(draft / MODEL_FILE, error=BundleError),
            golden_sha256=sha256_of_file(draft / GOLDEN_FOLDER / GOLDEN_FILE, error=BundleError),
            card_sha256=hash_model_card(card) if card.exists() else None,
        )
        complete.save(draft / LABELS_FILE)


@contextmanager
def staged_folder(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield an empty draft folder, which becomes the bundle `folder` if the block succeeds.

    The draft and an older bundle change places in one step. A killed process leaves the old bundle
    or the new one, and a hidden draft, which the next export deletes.

    Raises:
        BundleError: `folder` exists and is not a bundle.
        OSError: The folder cannot be written, or the disk is full.
    """
    target = Path(os.path.realpath(folder))
    _clean_up(target)
    _check_replaceable(target)
    draft = draft_path(target)
    delete(draft)  # of an earlier process with the same id
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft.mkdir()
        yield draft
        _check_replaceable(target)  # somebody may have put files there in the meantime
        _replace(target, draft)
    except OSError as error:
        if error.errno is None or not str(error.filename).startswith(str(draft)):
            raise
        # The user has never heard of the draft.
        raise OSError(error.errno, error.strerror, str(target)) from error
    finally:
        delete(draft)


def _clean_up(target: Path) -> None:
    """Finish or undo what killed processes left beside the target."""
    for draft in find_stale_drafts(target.parent):
        if _is_draft_of(draft, target):
            delete(draft)

    for replaced in find_stale_drafts(target.parent, REPLACED_SUFFIX):
        if not _is_draft_of(replaced, target):
            continue
        if target.exists():
            delete(replaced)
        else:
            replaced.rename(target)


def _is_draft_of(draft: Path, target: Path) -> bool:
    prefix = draft_prefix(target)
    host_and_process = draft.stem.removeprefix(prefix)
    # Two dots for `a` would be a draft of `a.b`.
    return draft.name.startswith(prefix) and host_and_process.count(".") == 1


def _check_replaceable(target: Path) -> None:
    """Refuse to replace a folder with files that do not belong to a bundle."""
    for path in (target, *target.parents):
        if path.exists() and not path.is_dir():
            raise BundleError(f"{path} is a file; choose a folder for the bundle")
    if not target.exists():
        return
    if target.is_mount():
        raise BundleError(
            f"{target} is a mount point, which cannot be replaced; choose a folder inside of it, "
            f"such as {target / 'bundle'}"
        )

    names = {path.name for path in target.iterdir()}
    foreign = sorted(names - _BUNDLE_FILES - _DESKTOP_FILES)
    if CARD_FILE in names and LABELS_FILE not in names:  # a README.md of something else
        foreign.append(CARD_FILE)
    if foreign:
        raise BundleError(
            f"{target} contains {foreign[0]!r}, so it is not a bundle; choose another folder"
        )


def _replace(target: Path, draft: Path) -> None:
    """Move the draft to the target. An older bundle ends up at the draft's path, or is deleted."""
    try:
        draft.rename(target)
    except OSError as error:  # asking first would let another process be faster
        if error.errno not in _NOT_EMPTY:
            raise
        if not exchange_folders(draft, target):
            _replace_in_two_steps(target, draft)


def _replace_in_two_steps(target: Path, draft: Path) -> None:
    """Replace a bundle where folders cannot be exchanged.

    Between the two renames there is no bundle. A reader that finds the renamed one waits, and the
    next export restores it if this process is killed there.
    """
    replaced = draft_path(target, REPLACED_SUFFIX)
    delete(replaced)
    target.rename(replaced)
    try:
        draft.rename(target)
    except OSError:
        replaced.rename(target)
        raise
    delete(replaced)


def exchange_folders(first: Path, second: Path) -> bool:
    """Let two folders change places in one step; return False where the system cannot do that.

    Uses renameat2(2) of Linux.

    Raises:
        OSError: The system can, but these folders cannot be exchanged.
    """
    if sys.platform != "linux":
        return False
    rename: Any = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False

    paths = os.fsencode(first), os.fsencode(second)
    result = rename(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE)
    if result == 0:
        return True
    code = ctypes.get_errno()
    if code in _UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code), str(second))
