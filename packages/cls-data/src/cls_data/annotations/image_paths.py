"""Paths of images, as annotation rows state them.

A row is named by the path that it states, even where that path is a link: DVC, git-annex, and the
Hugging Face cache store an image under a hash and put a link to it into the data root. So the
stated path must stay inside the root, and `..` is resolved by name. The target of a link may be
anywhere: whoever made the folder chose it, and its bytes are only ever decoded as an image.
"""

import os
import stat
from pathlib import Path

from cls_data.annotations.path_hints import PathHints

_MAX_SHOWN = 120
"""Characters of a path that a message quotes."""


class ImagePathError(ValueError):
    """A row's `image` does not name an image file inside the data root."""


def resolve_image_path(
    root: str, folder: str, image: str, hints: PathHints, *, must_exist: bool = True
) -> str:
    """Return the absolute path of an image, with links as the row states them.

    Paths are strings, so that 100,000 rows take a few seconds.

    Args:
        root: The data root, absolute.
        folder: The folder of the annotation file: `root` and the folder's name below it.
        image: The path as the row states it.
        hints: Suggests the spelling of a path that exists.
        must_exist: Whether the path must name a regular file.

    Raises:
        ImagePathError: The path is not relative, leaves the root, is not UTF-8, or does not name
            a regular file that must exist.
    """
    shown = _quote(image)
    if "\0" in image or os.path.isabs(image):  # noqa: PTH117
        hint = hints.suggest(folder, image)
        raise ImagePathError(
            f"image {shown} must be a path relative to the annotation file's folder{hint}"
        )

    path = os.path.normpath(os.path.join(folder, image))  # noqa: PTH118
    prefix = root.rstrip(os.sep) + os.sep
    if path != root and not path.startswith(prefix):
        hint = hints.suggest(folder, image)
        raise ImagePathError(f"image {shown} leaves the data root {root}{hint}")

    name = os.path.basename(image)  # noqa: PTH119
    if name in ("", ".", ".."):
        raise ImagePathError(f"image {shown} names a folder, not a file")
    if not is_utf8(path):
        raise ImagePathError(f"image {shown} has the path {path!a}, which is not UTF-8; rename it")
    if not must_exist:
        return path
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116
    except OSError as error:
        raise ImagePathError(_describe_missing(path, shown, error, hints, folder, image)) from error
    if stat.S_ISDIR(mode):
        raise ImagePathError(f"image {shown} is a folder ({path})")
    if not stat.S_ISREG(mode):
        raise ImagePathError(f"image {shown} is a device, pipe, or socket ({path})")
    return path


def is_utf8(path: str | Path) -> bool:
    """Return whether a path can be encoded as UTF-8. File systems allow names that cannot."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _quote(image: str) -> str:
    text = repr(image[:_MAX_SHOWN])
    if len(text) > _MAX_SHOWN or len(image) > _MAX_SHOWN:
        beginning = text[: _MAX_SHOWN - 1]
        text = f"{beginning}…'"
    return text


def _describe_missing(
    path: str, shown: str, error: OSError, hints: PathHints, folder: str, image: str
) -> str:
    """Say why there is no file: no such name, a link whose target is gone, or a system error."""
    if os.path.islink(path):  # noqa: PTH114
        target = os.readlink(path)  # noqa: PTH115
        return (
            f"image {shown} is a link to {target}, which cannot be opened ({error.strerror}); "
            "fetch the file, for example with `dvc pull` or `git annex get`"
        )
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        hint = hints.suggest(folder, image)
        return f"image {shown} does not exist (looked for {path}){hint}"
    return f"image {shown} cannot be looked up ({error.strerror})"
