"""How a bundle comes to lie where it is asked for: whole, and in place of nothing but a bundle."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cls_export.contract.bundle_layout import GOLDEN_FOLDER, LABELS_FILE, MODEL_FILE
from cls_export.contract.errors import BundleError


@contextmanager
def staged_bundle(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a place to write a bundle to, with an empty golden/; when nothing fails, it becomes `folder`.

    What lies beside the draft is deleted with it.

    Raises:
        BundleError: `folder` holds something else than a bundle.
    """
    target = Path(folder).resolve()
    _refuse_another_folder(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".bundle-") as scratch:
        draft = Path(scratch) / target.name
        (draft / GOLDEN_FOLDER).mkdir(parents=True)
        yield draft
        _put_in_place(draft, target, Path(scratch))


def _refuse_another_folder(target: Path) -> None:
    """A bundle replaces a bundle; anything else that lies at its place is the user's."""
    own = {MODEL_FILE, LABELS_FILE, GOLDEN_FOLDER}
    if target.is_dir():
        foreign = sorted({path.name for path in target.iterdir()} - own)
    else:
        foreign = [target.name] if target.exists() else []
    if foreign:
        raise BundleError(
            f"{target} holds {foreign[0]!r}, so it is not a bundle to be replaced; choose another folder"
        )


def _put_in_place(draft: Path, target: Path, scratch: Path) -> None:
    """Rename the old bundle away, then the new one in; should that fail, put the old one back."""
    old = scratch / "replaced"
    if target.exists():
        target.rename(old)
    try:
        draft.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
