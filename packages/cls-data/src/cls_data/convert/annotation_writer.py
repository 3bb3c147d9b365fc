"""Writing of annotation files for images that stay where they are."""

import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath

from pydantic import JsonValue

from cls_data.annotations.reading import SPLITS, Split
from cls_data.errors import DataError
from cls_export.contract.files import write_atomically
from cls_export.contract.image_formats import IMAGE_SUFFIXES

ANNOTATIONS_FILE = "annotations.jsonl"

_SPLIT_NAMES: Mapping[str, Split] = {
    "train": "train",
    "valid": "valid",
    "val": "valid",
    "validation": "valid",
    "test": "test",
}
_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f]")
_MAX_SHOWN_PATH = 200
_MAX_SHOWN_LABEL = 60


@dataclass(frozen=True, slots=True)
class ConversionResult:
    """Annotation files that a conversion wrote, their numbers of rows, and remarks for the user."""

    files: Mapping[Split, Path]
    row_counts: Mapping[Split, int]
    notes: tuple[str, ...] = ()


class AnnotationWriter:
    """Collects rows and problems, then writes one annotation file per split.

    Attributes:
        root: The data root, resolved.
        notes: Remarks for the user.

    Raises:
        DataError: The data root does not exist.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root).resolve()
        self.notes: list[str] = []
        self._lines: dict[Split, list[bytes]] = {}
        self._problems: list[str] = []

        if not self.root.is_dir():
            raise DataError(f"{root}: no such folder; expected the folder that holds the images")

    def add_row(
        self,
        split: str,
        image: Path,
        label: str,
        source: str,
        *,
        group: str | None = None,
        metadata: Mapping[str, JsonValue] | None = None,
    ) -> None:
        """Add a row, or a problem if the row could not be read back.

        `split` is a split name, "val", or "validation", in any case. `source` is the origin of the
        row, for messages.
        """
        target = _SPLIT_NAMES.get(split.lower())
        if target is None:
            self.add_problem(f"{source}: split {split!r} is not one of {', '.join(_SPLIT_NAMES)}")
            return
        problem = _find_problem(image, label, self.root)
        if problem is not None:
            self.add_problem(f"{source}: {problem}")
            return
        line = encode_row(self.root / target, image, label, group, metadata)
        lines = self._lines.setdefault(target, [])
        lines.append(line)

    def add_problem(self, problem: str) -> None:
        """Add a problem, which prevents writing."""
        self._problems.append(problem)

    def write(self, expected: str) -> ConversionResult:
        """Write an annotation file for each split that has rows.

        Raises:
            DataError: A split already has annotations, there are problems, or there are no rows.
                Nothing is written.
        """
        for split in self._lines or SPLITS:
            existing = next((self.root / split).rglob("*.jsonl"), None)
            if existing is not None:
                raise DataError(
                    f"{existing}: {split} already has annotations; move them away first"
                )

        if self._problems:
            raise DataError.from_findings(
                f"{self.root}: {len(self._problems)} row(s) or image(s) cannot be annotated",
                self._problems,
                "Correct or remove them. Nothing was written.",
            )

        if not self._lines:
            message = f"{self.root}: no images to annotate; expected {expected}"
            raise DataError("\n  ".join([message, *self.notes]))

        if "valid" not in self._lines:
            self.notes.append("No valid split; create one with `cls-data split`")

        files: dict[Split, Path] = {}
        row_counts: dict[Split, int] = {}
        for split in SPLITS:
            lines = self._lines.get(split)
            if lines is not None:
                files[split] = self.root / split / ANNOTATIONS_FILE
                row_counts[split] = len(lines)
                write_atomically(files[split], b"".join(lines))

        return ConversionResult(files, row_counts, tuple(self.notes))


def encode_row(
    folder: Path,
    image: Path,
    label: str,
    group: str | None = None,
    metadata: Mapping[str, JsonValue] | None = None,
) -> bytes:
    """Return a line of an annotation file in `folder`; both paths are absolute.

    The row names the image by its given path, even if that is a link.
    """
    row: dict[str, object] = {
        "image": PurePath(os.path.relpath(image, folder)).as_posix(),
        "suffix": label,
    }

    if group is not None:
        row["group"] = group
    if metadata:
        row["metadata"] = dict(metadata)
    return (json.dumps(row, ensure_ascii=False) + "\n").encode()


def find_split_folders(root: Path) -> list[tuple[Split, Path]]:
    """Return the split folders of a data root, sorted by path."""
    folders = []
    for path in sorted(visible_entries(root)):
        split = _SPLIT_NAMES.get(path.name.lower())
        if split is not None and path.is_dir():
            folders.append((split, path))
    return folders


def visible_entries(folder: Path) -> Iterator[Path]:
    """Yield the files and folders in a folder that are not hidden."""
    for path in folder.iterdir():
        if not path.name.startswith("."):
            yield path


def is_image_file(path: Path) -> bool:
    """Return whether a path has the extension of an image and is not a folder."""
    suffix = path.suffix.lower()
    return suffix in IMAGE_SUFFIXES and not path.is_dir()


def _find_problem(image: Path, label: str, root: Path) -> str | None:
    """Return why `read_split` would reject a row, or None if it would not."""
    name = ascii(str(image)[:_MAX_SHOWN_PATH])
    try:
        path = Path(os.path.abspath(image))  # noqa: PTH100 (keeps links)
        str(path).encode()
        is_file = stat.S_ISREG(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        is_file = False
    except UnicodeEncodeError:
        return f"the name of image {name} is not UTF-8; rename it"
    except (OSError, ValueError) as error:  # the name is too long or contains a NUL
        return f"image {name} cannot be opened ({error})"

    if not path.is_relative_to(root):
        return f"image {name} is outside the data root {root}"
    if _CONTROL_CHARACTER.search(label):
        return f"label {label[:_MAX_SHOWN_LABEL]!r} contains a control character"
    if not is_file:
        return f"image {name} does not exist"
    return None
