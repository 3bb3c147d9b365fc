"""Search for annotation files (`*.jsonl`) below a split folder."""

import os
import re
from pathlib import Path

from cls_data.annotations.image_paths import is_utf8
from cls_data.errors import DataError
from cls_export.contract.image_folder import is_hidden

_SUFFIX = ".jsonl"

_CONTENT_NAME = re.compile(r"(?:.*--)?[0-9a-f]{30,128}(?:\.\w+)*")
"""Names in a cache whose files are named by their content: DVC (30 to 32 hexadecimal digits), the
Hugging Face cache (40 or 64), and git-annex (`SHA256E-s812--<64 digits>.jsonl`)."""


def find_annotation_files(folder: Path, root: Path) -> list[Path]:
    """Return the annotation files below a folder, sorted by path.

    Hidden files and folders are skipped. Links to folders are not followed, because they may lead
    to another split; the split folder itself may be a link.

    Args:
        folder: A split folder, as a path below `root`.
        root: The data root, resolved.

    Raises:
        DataError: A folder cannot be read, a name is not UTF-8, or a file is a link out of the
            root. Lines of annotations appear in messages, so a link must not lead to any file; a
            cache whose files are named by their content is allowed.
    """
    files: list[Path] = []
    folders = [folder]
    while folders:
        current = folders.pop()
        try:
            with os.scandir(current) as entries:
                visible = [entry for entry in entries if not is_hidden(entry.name)]
        except OSError as error:
            raise DataError(f"{current}: cannot be read ({error.strerror})") from error

        for entry in visible:
            if _is_folder(entry):
                if not entry.is_symlink():
                    folders.append(current / entry.name)
            elif entry.name.lower().endswith(_SUFFIX):
                path = current / entry.name
                _check_file(path, root)
                files.append(path)
    return sorted(files)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def is_inside(path: Path, root: Path) -> bool:
    """Return whether a path, with links resolved, is inside a resolved folder."""
    real_path = os.path.realpath(path)
    return Path(real_path).is_relative_to(root)


def _check_file(file: Path, root: Path) -> None:
    if not is_utf8(file):
        raise DataError(
            f"{str(file)!a}: the path is not valid UTF-8; rename the file or its folder"
        )
    if not file.is_symlink() or is_inside(file, root):
        return
    target = os.path.realpath(file)
    if not _CONTENT_NAME.fullmatch(os.path.basename(target)):  # noqa: PTH119
        raise DataError(
            f"{file}: is a link to {target}, outside the data root; copy the annotation file "
            "into the data root. (Images may be links to any file.)"
        )
