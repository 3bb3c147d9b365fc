"""Suggestions for image paths that do not exist: the nearest spelling that does."""

import itertools
import os
import unicodedata
import urllib.parse
from collections.abc import Iterator
from pathlib import PurePosixPath, PureWindowsPath

from cls_export.contract.image_formats import IMAGE_SUFFIXES

_MAX_LENGTH = 1000
"""Longer paths get no suggestion."""

_MAX_PARTS = 6
"""Parts of an absolute path that are tried below the data root, from the end."""

_MAX_ENTRIES = 100_000
"""Entries of one folder that are compared."""

_MAX_SUGGESTIONS = 1000
"""Messages list far fewer rows, and a suggestion takes up to 0.1 ms."""


class PathHints:
    """Suggests existing paths; lists each folder at most once.

    Finds Windows and absolute paths of another machine, URL-encoded names, paths relative to the
    data root instead of the annotation file, another letter case or Unicode form, surrounding
    blanks, and a missing or different suffix.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._listings: dict[str, dict[str, str]] = {}
        self._num_calls = 0

    def suggest(self, folder: str, image: str) -> str:
        """Return a hint to append to a message, such as "; did you mean 'a.jpg'?", or "".

        Args:
            folder: The folder that the image's path is relative to, inside the root.
            image: The path as the row states it.
        """
        self._num_calls += 1
        if self._num_calls > _MAX_SUGGESTIONS or len(image) > _MAX_LENGTH or "\0" in image:
            return ""
        for parts in _spellings(image):
            for base in (folder, self._root):
                path = self._find(base, parts)
                if path is not None:
                    relative = os.path.relpath(path, folder).replace(os.sep, "/")
                    return f"; did you mean {_quote(relative, image)}?"
        return ""

    def _find(self, base: str, parts: tuple[str, ...]) -> str | None:
        """Return an existing file below a folder, comparing each part of its path by its key."""
        path = base
        for position, part in enumerate(parts):
            names = self._list(path)
            name = names.get(_key(part))
            is_last = position == len(parts) - 1
            if name is None and is_last:
                name = names.get(f"{_key(part)}.") or names.get(_stem_key(part))
                stem, _ = os.path.splitext(part)  # noqa: PTH122
                name = name or names.get(_key(stem))  # a doubled suffix
            if name is None:
                return None
            path = f"{path}{os.sep}{name}"
        return path if os.path.isfile(path) else None  # noqa: PTH113

    def _list(self, folder: str) -> dict[str, str]:
        """Return the names in a folder by their keys; images also by their keys without suffix."""
        if folder in self._listings:
            return self._listings[folder]

        names: dict[str, str] = {}
        try:
            with os.scandir(folder) as entries:
                for entry in itertools.islice(entries, _MAX_ENTRIES):
                    names[_key(entry.name)] = entry.name
                    _, suffix = os.path.splitext(entry.name)  # noqa: PTH122
                    if suffix.lower() in IMAGE_SUFFIXES:
                        names.setdefault(_stem_key(entry.name), entry.name)
        except OSError:
            pass  # without a listing there is no suggestion
        self._listings[folder] = names
        return names


def _spellings(image: str) -> Iterator[tuple[str, ...]]:
    """Yield the parts of a path in each spelling that it may stand for, the likeliest first."""
    texts = [image]
    decoded = urllib.parse.unquote(image)
    if decoded != image:
        texts.append(decoded)

    for text in texts:
        for flavor in (PurePosixPath, PureWindowsPath):
            parts = _parts(flavor(text))
            if parts:
                yield parts
            # The end of an absolute path, or of one that leaves the root.
            for start in range(max(1, len(parts) - _MAX_PARTS), len(parts)):
                yield parts[start:]


def _parts(path: PurePosixPath | PureWindowsPath) -> tuple[str, ...]:
    """Return the names in a path, without the anchor and without `..`."""
    anchor = path.anchor
    return tuple(part for part in path.parts if part not in (anchor, "..", "."))


def _key(name: str) -> str:
    """Return what names that look alike have in common."""
    folded = unicodedata.normalize("NFC", name).casefold()
    return unicodedata.normalize("NFC", folded).strip()


def _stem_key(name: str) -> str:
    """Return the key of an image's name without its suffix; no key of a name ends in a dot."""
    stem, _ = os.path.splitext(name)  # noqa: PTH122
    return f"{_key(stem)}."


def _quote(path: str, given: str) -> str:
    """Quote a path; with escapes if it would look like the given one."""
    is_lookalike = unicodedata.normalize("NFC", path) == unicodedata.normalize("NFC", given)
    return ascii(path) if is_lookalike else repr(path)
