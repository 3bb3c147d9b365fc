"""Resolve image paths inside the data root."""

import functools
import os
import stat
from pathlib import Path


class ImagePathError(ValueError):
    """A row's `image` does not name an image file inside the data root."""


def resolve_image_path(root: str, folder: str, image: str) -> str:
    """Return the absolute path of an image with symbolic links resolved.

    Paths are strings and each folder is resolved once, so that 100,000 rows take a few seconds.

    Args:
        root: The data root, resolved.
        folder: The folder of the annotation file.
        image: The path as the row states it.

    Raises:
        ImagePathError: The path is not relative, leaves the root, is not UTF-8, or does not name
            a regular file.
    """
    if "\0" in image or os.path.isabs(image):  # noqa: PTH117
        raise ImagePathError(
            f"image {image!r} must be a path relative to the annotation file's folder"
        )

    parent, name = os.path.split(image)
    try:
        resolved = _resolve_folder(os.path.join(folder, parent))  # noqa: PTH118
        path = f"{resolved}{os.sep}{name}"
        mode = _file_mode(path)
        if name in ("", ".", "..") or stat.S_ISLNK(mode):
            path = os.path.realpath(path)
            mode = _file_mode(path)
    except OSError as error:  # for example, a name longer than the file system allows
        raise ImagePathError(
            f"image {image[:80]!r} cannot be looked up ({error.strerror})"
        ) from error

    prefix = root.rstrip(os.sep) + os.sep
    if path != root and not path.startswith(prefix):
        raise ImagePathError(f"image {image!r} leaves the data root {root}")
    if not is_utf8(path):
        raise ImagePathError(
            f"image {image!r} has the path {path!a}, which is not UTF-8; rename it"
        )
    if not stat.S_ISREG(mode):
        raise ImagePathError(f"image {image!r} does not exist (looked for {path})")
    return path


def clear_folder_cache() -> None:
    """Forget resolved folders, since links may have changed."""
    _resolve_folder.cache_clear()


def is_utf8(path: str | Path) -> bool:
    """Return whether a path can be encoded as UTF-8. File systems allow names that cannot."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _file_mode(path: str) -> int:
    """Return a file's type and permission bits, or 0 if it does not exist."""
    try:
        return os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0


@functools.lru_cache(maxsize=256)
def _resolve_folder(folder: str) -> str:
    return os.path.realpath(folder)
