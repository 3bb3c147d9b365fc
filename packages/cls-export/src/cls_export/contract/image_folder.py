"""Search for the images in a folder."""

import os
import stat
from collections import Counter
from collections.abc import Iterator
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
    skipped: Counter[str] = Counter()
    images = list(_search(Path(folder), skipped))
    images.sort(key=lambda path: path.parts)
    return FoundImages(tuple(images), skipped)


def has_images(folder: str | os.PathLike[str]) -> bool:
    """Return whether `find_images` would find one; the search ends with the first.

    Raises:
        OSError: A folder that is searched until then does not exist, or cannot be read.
    """
    return next(_search(Path(folder), Counter()), None) is not None


def _search(folder: Path, skipped: Counter[str]) -> Iterator[Path]:
    """Yield the images, and count what is skipped."""
    searched: set[tuple[int, int]] = set()
    folders = [folder]
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

        for name in sorted(os.listdir(current)):  # noqa: PTH208  # sorting paths takes longer
            entry = current / name
            if is_hidden(name):
                skipped[HIDDEN] += 1
            elif not entry.is_dir():
                if _is_image(entry, skipped):
                    yield entry
            elif entry.is_symlink():
                links.append(entry)
            else:
                folders.append(entry)
        links.sort()


def is_hidden(name: str) -> bool:
    """Return whether the name of a file or folder starts with a dot, or is one that systems use."""
    return name.startswith(".") or name.lower() in _SYSTEM_FOLDERS


def has_image_suffix(path: Path) -> bool:
    """Return whether a file name has the suffix of an accepted format, in any case."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def _is_image(path: Path, skipped: Counter[str]) -> bool:
    """Return whether a path that is no folder is an image; if not, count it as skipped."""
    if not has_image_suffix(path):
        skipped[path.suffix.lower() or NO_SUFFIX] += 1
        return False
    try:
        mode = path.stat().st_mode
    except OSError:
        skipped[BROKEN_LINK] += 1
        return False
    if not stat.S_ISREG(mode):
        skipped[NOT_A_FILE] += 1
        return False
    return True
