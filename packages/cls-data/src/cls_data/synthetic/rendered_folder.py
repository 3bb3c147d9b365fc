"""A folder of rendered crops: known as one by its manifest, and replaced as a whole or not at all."""

import json
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from cls_data.synthetic.rendering import as_jpeg

MANIFEST = "synthetic.json"
"""Written last, with the settings: its presence says that the folder is whole, its content what it holds."""


def read_manifest(folder: Path) -> object:
    """Return what `write_manifest` wrote; None where there is nothing, or nothing readable."""
    try:
        return json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return None


def write_manifest(folder: Path, manifest: Mapping[str, object]) -> None:
    """Declare the folder whole; `manifest` names its `kind`, and every setting that its content follows from."""
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def foreign_file(folder: Path, kind: str, own_files: re.Pattern[str]) -> str | None:
    """Return the first file that rendering did not write, relative to the folder, or None.

    A rendered folder's files are known by their names, and are its own only if its manifest is of this `kind`.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        return "."
    manifest = read_manifest(folder)
    ours = isinstance(manifest, dict) and manifest.get("kind") == kind
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if (path.is_symlink() or not path.is_dir()) and not (ours and own_files.fullmatch(name)):
            return name
    return None


@contextmanager
def replacing(folder: Path, drafts: Path) -> Iterator[Path]:
    """Give an empty folder to fill; on leaving it becomes `folder`, or goes away with whatever error ended the filling.

    Args:
        folder: what is replaced, if it exists.
        drafts: an existing folder on the same file system, where no reader takes an unfinished draft for data.
    """
    with tempfile.TemporaryDirectory(dir=drafts, prefix=f".{folder.name}-") as scratch:
        draft = Path(scratch) / folder.name
        draft.mkdir()
        yield draft
        if folder.exists():
            folder.rename(Path(scratch) / "old")
        draft.rename(folder)


def remove(folder: Path, drafts: Path) -> None:
    """Remove a folder, if it exists, in one step as a reader sees it; `drafts` as for `replacing`."""
    if folder.exists():
        with tempfile.TemporaryDirectory(dir=drafts, prefix=f".{folder.name}-") as scratch:
            folder.rename(Path(scratch) / "old")


def write_crops(folder: Path, crops: Iterable[tuple[str, Image.Image]]) -> None:
    """Write `annotations.jsonl` and `images/NNNNNN.jpg`, numbered in the order of the (label, crop) pairs."""
    (folder / "images").mkdir(parents=True)
    rows = []
    for number, (label, crop) in enumerate(crops):
        name = f"images/{number:06d}.jpg"
        (folder / name).write_bytes(as_jpeg(crop))
        rows.append({"image": name, "suffix": label, "metadata": {"source": "synthetic"}})
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "annotations.jsonl").write_text(text, encoding="utf-8")
