"""Writing of annotation files for images that stay where they are."""

import json
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import NamedTuple

from pydantic import JsonValue

from cls_data.annotations.annotation_files import find_annotation_files
from cls_data.annotations.class_folders import SPLIT_FOLDERS
from cls_data.annotations.label_names import label_key, quote_label
from cls_data.annotations.path_hints import PathHints
from cls_data.annotations.reading import SPLITS, Split
from cls_data.annotations.rows import CONTROL_CHARACTER, MAX_LABEL_LENGTH
from cls_data.errors import DataError
from cls_export.contract.files import read_bytes, remove_drafts, write_atomically
from cls_export.contract.image_folder import is_hidden

ANNOTATIONS_FILE = "annotations.jsonl"

_MAX_SHOWN_PATH = 200
_MAX_SHOWN_LABEL = 60


@dataclass(frozen=True, slots=True)
class ConversionResult:
    """Annotation files that a conversion wrote, their numbers of rows, and remarks for the user."""

    files: Mapping[Split, Path]
    row_counts: Mapping[Split, int]
    notes: tuple[str, ...] = ()


class _Row(NamedTuple):
    """What a row says about its image, and where the row is from."""

    split: Split
    label: str
    source: str


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
        self._rows: dict[str, _Row] = {}
        self._repeated: list[str] = []
        self._problems: list[str] = []
        self._hints = PathHints(str(self.root))

        if not self.root.is_dir():
            raise DataError(f"{root}: no such folder; expected the folder that holds the images")

    def add_row(
        self,
        split: str,
        image: Path,
        label: str,
        source: str,
        *,
        stated: tuple[Path, str] | None = None,
        group: str | None = None,
        metadata: Mapping[str, JsonValue] | None = None,
    ) -> None:
        """Add a row, or a problem if the row could not be read back.

        A second row of an image is skipped if it has the same split and label, and is a problem
        otherwise.

        Args:
            split: Name of a split folder, such as "train" or "val", in any case.
            image: Absolute path of the image.
            label: The class.
            source: The origin of the row, for messages.
            stated: The folder that a table's paths are relative to, and the path in the table, for
                suggestions.
            group: Group of the row.
            metadata: Metadata of the row.
        """
        target = SPLIT_FOLDERS.get(split.lower())
        if target is None:
            names = ", ".join(SPLIT_FOLDERS)
            self.add_problem(f"{source}: split {split!r} is not one of {names}")
            return
        problem = self._find_problem(image, label, stated)
        if problem is not None:
            self.add_problem(f"{source}: {problem}")
            return

        path = os.path.abspath(image)  # noqa: PTH100 (keeps links)
        row = _Row(target, label, source)
        first = self._rows.setdefault(path, row)
        if first is not row:
            self._add_repeated(image, first, row)
            return
        line = encode_row(self.root / target, image, label, group, metadata)
        self._lines.setdefault(target, []).append(line)

    def add_problem(self, problem: str) -> None:
        """Add a problem, which prevents writing."""
        self._problems.append(problem)

    def write(self, expected: str) -> ConversionResult:
        """Write an annotation file for each split that has rows; train is written last.

        An interrupted conversion is finished by the same conversion: files that it wrote are left
        as they are.

        Raises:
            DataError: A split already has other annotations, there are problems, or there are no
                rows. Nothing is written.
        """
        contents = {split: b"".join(lines) for split, lines in self._lines.items()}
        for split in contents or SPLITS:
            self._check_target(split, contents.get(split))
        if self._problems:
            raise DataError.from_findings(
                f"{self.root}: {len(self._problems)} row(s) or image(s) cannot be annotated",
                self._problems,
                "Correct or remove them. Nothing was written.",
            )
        if not contents:
            message = f"{self.root}: no images to annotate; expected {expected}"
            raise DataError("\n  ".join([message, *self.notes]))

        self._add_notes()
        files: dict[Split, Path] = {}
        row_counts: dict[Split, int] = {}
        for split in SPLITS:
            if split in contents:
                files[split] = self.root / split / ANNOTATIONS_FILE
                row_counts[split] = len(self._lines[split])

        # Without train nothing can be trained, so it shows that the conversion is complete.
        for split in reversed(files):
            if not files[split].exists():
                write_atomically(files[split], contents[split])
        return ConversionResult(files, row_counts, tuple(self.notes))

    def _check_target(self, split: Split, content: bytes | None) -> None:
        """Raise a `DataError` if a split has annotations, unless they are what is to be written."""
        folder = self.root / split
        if not folder.is_dir():
            if os.path.lexists(folder):
                raise DataError(f"{folder}: not a folder; the {split} annotations belong there")
            return
        remove_drafts(folder)
        for file in find_annotation_files(folder, self.root):
            is_written = content is not None and file == folder / ANNOTATIONS_FILE
            if is_written and read_bytes(file, error=DataError) == content:
                continue
            raise DataError(f"{file}: {split} already has annotations; move them away first")

    def _add_repeated(self, image: Path, first: _Row, row: _Row) -> None:
        if first[:2] == row[:2]:
            self._repeated.append(row.source)
            return
        name = ascii(image.name[:_MAX_SHOWN_PATH])
        self.add_problem(
            f"{row.source}: image {name} has label {row.label!r} in {row.split}, but "
            f"{first.label!r} in {first.split} at {first.source}"
        )

    def _add_notes(self) -> None:
        if self._repeated:
            self.notes.append(
                f"Skipped {len(self._repeated)} repeated row(s), the first at {self._repeated[0]}"
            )
        empty = [row.source for row in self._rows.values() if not row.label]
        if empty:
            self.notes.append(f"{len(empty)} row(s) have an empty label, the first at {empty[0]}")

        labels = sorted({row.label for row in self._rows.values()})
        if len(labels) == 1:
            self.notes.append(f"All rows have the label {labels[0]!r}; training needs two classes")
        names: dict[str, str] = {}
        for label in labels:
            other = names.setdefault(label_key(label), label)
            if other != label:
                self.notes.append(
                    f"Classes {quote_label(other)} and {quote_label(label)} differ only in letter "
                    "case, blanks, or Unicode form; merge them if they mean the same"
                )
        if "valid" not in self._lines:
            self.notes.append("No valid split; create one with `cls-data split`")

    def _find_problem(self, image: Path, label: str, stated: tuple[Path, str] | None) -> str | None:
        """Return why `read_split` would reject a row, or None if it would not."""
        name = ascii(str(image)[:_MAX_SHOWN_PATH])
        if CONTROL_CHARACTER.search(label):
            return f"label {label[:_MAX_SHOWN_LABEL]!r} contains a control character"
        if len(label) > MAX_LABEL_LENGTH:
            beginning = label[:_MAX_SHOWN_LABEL]
            return f"label {beginning!r}… is longer than {MAX_LABEL_LENGTH} characters"
        try:
            path = Path(os.path.abspath(image))  # noqa: PTH100 (keeps links)
            str(path).encode()
            mode = path.stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            mode = 0
        except UnicodeEncodeError:
            return f"the name of image {name} is not UTF-8; rename it"
        except (OSError, ValueError) as error:  # the name is too long or contains a NUL
            return f"image {name} cannot be opened ({error})"

        problem = None
        if not path.is_relative_to(self.root):
            problem = f"image {name} is outside the data root {self.root}"
        elif stat.S_ISDIR(mode):
            problem = f"image {name} is a folder"
        elif mode == 0:
            problem = f"image {name} does not exist"
        elif not stat.S_ISREG(mode):
            problem = f"image {name} is a device, pipe, or socket"
        if problem is None or stated is None:
            return problem
        folder, text = stated
        return problem + self._hints.suggest(str(folder), text)


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
        split = SPLIT_FOLDERS.get(path.name.lower())
        if split is not None and path.is_dir():
            folders.append((split, path))
    return folders


def visible_entries(folder: Path) -> Iterator[Path]:
    """Yield the files and folders in a folder that are not hidden."""
    for path in folder.iterdir():
        if not is_hidden(path.name):
            yield path
