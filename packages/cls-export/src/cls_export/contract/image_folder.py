"""Search for the images in a folder."""

import os
import stat
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cls_export.contract.image_formats import IMAGE_SUFFIXES

HIDDEN: Final = "hidden"
REPEATED: Final = "link to a folder that is searched anyway"
BROKEN_LINK: Final = "broken link"
NOT_A_FILE: Final = "device, pipe, or socket"
NO_SUFFIX: Final = "without a suffix"

_SYSTEM_FOLDERS: Final = {
    "__macosx",  # resource forks, in ZIP files of macOS
    "@eadir",  # thumbnails, on Synology servers
    "#recycle",
    "$recycle.bin",
    "system volume information",
    "lost+found",
}
"""Folders that a system makes without being asked, in lower case."""


@dataclass(frozen=True, slots=True)
class FoundImages:
    """The images in a folder and its subfolders, and what else is there.

    Attributes:
        images: Paths that start with the folder's path, sorted by their parts.
        skipped: Numbers of skipped files by lowercase suffix, such as `.txt`, or by one of the
            descriptions `HIDDEN`, `REPEATED`, `BROKEN_LINK`, `NOT_A_FILE`, and `NO_SUFFIX`.
    """

    images: tuple[Path, ...]
    skipped: Counter[str]

    def describe_skipped(self) -> str:
        """Return the numbers as text, such as `2 .txt, 1 hidden`; empty if nothing is skipped."""
        ordered = sorted(self.skipped.items(), key=lambda item: (-item[1], item[0]))
        return ", ".join(f"{count} {kind}" for kind, count in ordered)


def find_images(folder: str | os.PathLike[str]) -> FoundImages:
    """Find the files with the suffix of an accepted format, in a folder and its subfolders.

    Hidden files and folders are skipped; see `is_hidden`. Links are followed, but each folder is
    searched only once, by its own path if it has one below `folder`. Contents are not read.

    Raises:
        OSError: A folder does not exist, or cannot be read.
    """
    images: list[Path] = []
    skipped: Counter[str] = Counter()
    searched: set[tuple[int, int]] = set()

    folders = [Path(folder)]
    links: list[Path] = []
    while folders or links:
        # Folders come before links to them, so that images get the shorter, stable name.
        current = folders.pop() if folders else links.pop(0)
        state = current.stat()
        identity = (state.st_dev, state.st_ino)
        if identity in searched:
            skipped[REPEATED] += 1
            continue
        searched.add(identity)

        for entry in sorted(current.iterdir()):
            if is_hidden(entry.name):
                skipped[HIDDEN] += 1
            elif not entry.is_dir():
                _sort_file(entry, images, skipped)
            elif entry.is_symlink():
                links.append(entry)
            else:
                folders.append(entry)
        links.sort()

    images.sort(key=lambda path: path.parts)
    return FoundImages(tuple(images), skipped)


def is_hidden(name: str) -> bool:
    """Return whether the name of a file or folder starts with a dot, or is one that systems use."""
    return name.startswith(".") or name.lower() in _SYSTEM_FOLDERS


def has_image_suffix(path: Path) -> bool:
    """Return whether a file name has the suffix of an accepted format, in any case."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def _sort_file(path: Path, images: list[Path], skipped: Counter[str]) -> None:
    """Add a path that is no folder to the images or to the skipped files."""
    if not has_image_suffix(path):
        skipped[path.suffix.lower() or NO_SUFFIX] += 1
        return
    try:
        mode = path.stat().st_mode
    except OSError:
        skipped[BROKEN_LINK] += 1
        return
    if stat.S_ISREG(mode):
        images.append(path)
    else:
        skipped[NOT_A_FILE] += 1
