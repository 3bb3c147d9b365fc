"""Folders of rendered images: identified by a manifest, and replaced atomically."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from cls_data.synthetic.rendering import encode_jpeg
from cls_export.contract.files import delete, draft_path, remove_drafts

MANIFEST = "synthetic.json"
"""Written last, with the settings. Its presence shows that the folder is complete."""


def read_manifest(folder: Path) -> object:
    """Return the content of the manifest, or None if it is missing or unreadable."""
    try:
        return json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return None


def write_manifest(folder: Path, manifest: Mapping[str, object]) -> None:
    """Mark the folder as complete; the manifest has its `kind` and all settings of its content."""
    text = json.dumps(manifest, indent=2) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")


def find_obstacle(folder: Path, kind: str, own_files: re.Pattern[str]) -> str | None:
    """Return why a folder must not be replaced, such as "contains notes.txt", or None.

    `own_files` matches the relative paths that rendering writes. Without a manifest of this `kind`,
    every file is an obstacle.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        return "is a link or a file"

    manifest = read_manifest(folder)
    is_own_folder = isinstance(manifest, dict) and manifest.get("kind") == kind

    for path in sorted(folder.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            continue

        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not is_own_folder or not own_files.fullmatch(name):
            return f"contains {name}"

    return None


@contextmanager
def replace_folder(folder: Path, temporary_parent: Path) -> Iterator[Path]:
    """Yield an empty folder to fill, which then replaces `folder`; on errors, it is deleted.

    Drafts of killed processes are removed first. If another process has written a folder with the
    same manifest in the meantime, that one is kept, since it may be in use.

    `temporary_parent` is a folder on the same file system where no reader takes an unfinished
    folder for data.
    """
    with _create_draft(folder, temporary_parent) as draft:
        new_folder = draft / folder.name
        new_folder.mkdir()
        yield new_folder
        manifest = read_manifest(new_folder)
        if manifest is not None and read_manifest(folder) == manifest:
            return
        if folder.exists():
            folder.rename(draft / "old")
        new_folder.rename(folder)


def remove_folder(folder: Path, temporary_parent: Path) -> None:
    """Remove a folder, if it exists, atomically for readers; see `replace_folder`."""
    if not folder.exists():
        return
    with _create_draft(folder, temporary_parent) as draft:
        folder.rename(draft / "old")


@contextmanager
def _create_draft(folder: Path, temporary_parent: Path) -> Iterator[Path]:
    remove_drafts(temporary_parent)
    draft = draft_path(temporary_parent / folder.name)
    delete(draft)  # of an earlier process with the same number
    draft.mkdir()
    try:
        yield draft
    finally:
        delete(draft)


def write_crops(folder: Path, crops: Iterable[tuple[str, Image.Image]]) -> None:
    """Write (label, crop) pairs as `annotations.jsonl` and `images/NNNNNN.jpg`, in order."""
    (folder / "images").mkdir(parents=True)
    lines = []
    for number, (label, crop) in enumerate(crops):
        name = f"images/{number:06d}.jpg"
        (folder / name).write_bytes(encode_jpeg(crop))
        row = {
            "image": name,
            "suffix": label,
            "metadata": {"source": "synthetic"},
        }
        lines.append(json.dumps(row) + "\n")

    (folder / "annotations.jsonl").write_text("".join(lines), encoding="utf-8")
