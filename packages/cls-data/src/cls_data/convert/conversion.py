"""Writes annotations beside images that stay where they are: class folders, a CSV table, a Roboflow export."""

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from pydantic import JsonValue

from cls_data.annotations.reading import SPLITS, Split, read_split
from cls_data.convert.csv_table import column, read_table
from cls_data.errors import DataError
from cls_export.contract.files import write_atomically
from cls_export.contract.image_formats import IMAGE_SUFFIXES

FILE_NAME = "annotations.jsonl"

_SPLIT_NAMES: Mapping[str, Split] = {
    "train": "train",
    "valid": "valid",
    "val": "valid",
    "validation": "valid",
    "test": "test",
}
_CLASSES_CSV = "_classes.csv"
_NO_IMAGE = "file(s) that are no images"


@dataclass(frozen=True, slots=True)
class Conversion:
    """What a conversion wrote.

    Attributes:
        files: the annotation file written for each split; empty where nothing had to be done.
        rows: number of rows in each.
        notes: what the user should know, such as files that were left out; a sentence each.
    """

    files: Mapping[Split, Path]
    rows: Mapping[Split, int]
    notes: tuple[str, ...] = ()


def convert_image_folder(root: str | os.PathLike[str]) -> Conversion:
    """Annotate `ROOT/{train,valid,test}/CLASS/**/image`, or `ROOT/CLASS/**/image`, which all becomes train.

    "val" and "validation" are other names of valid. Hidden files and folders are ignored; links to folders are not
    followed. Whatever else is left out is counted in the notes.

    Raises:
        DataError: no image lies in a class folder, a split has annotations already, or an image cannot be named.
    """
    draft = _Draft(_folder(root))
    folders = _split_folders(draft.root)
    for split, folder in folders:
        draft.add_classes(split, folder, lambda name: None)
    if not folders:
        draft.add_classes("train", draft.root, lambda name: None)
    elif beside := sum(path.is_dir() for path in _visible(draft.root)) - len(folders):
        draft.notes.append(f"{beside} folder(s) beside the splits left out")
    return draft.write("ROOT/train/CLASS/image.jpg or ROOT/CLASS/image.jpg")


def convert_csv(
    root: str | os.PathLike[str],
    table: str | os.PathLike[str],
    *,
    image: str = "image",
    label: str = "label",
    split: str | None = None,
    group: str | None = None,
    delimiter: str = ",",
) -> Conversion:
    """Annotate the images that a CSV file with a header names, by paths relative to the CSV file's folder.

    `image`, `label`, `split` and `group` are names of columns. The last two may be None: then a column called "split"
    or "group" is used if there is one, and without splits every row goes to train. An empty group is none. All other
    columns become metadata. Every value stays the string that it is.

    Raises:
        DataError: a column is missing or there twice, the file is not UTF-8 or not CSV, a split has annotations
            already, or rows name no split, an image that is missing or one outside the root. All such rows are named.
    """
    draft = _Draft(_folder(root))
    file = Path(table).resolve()
    if not file.is_relative_to(draft.root) or not file.is_file():
        raise DataError(
            f"{table}: no such file within the data root {draft.root}; put the CSV file there"
        )
    source = file.relative_to(draft.root).as_posix()
    header, rows = read_table(file, source, delimiter)
    optional = {role: role for role in ("split", "group") if role in header}
    named = {role: name for role, name in (("split", split), ("group", group)) if name is not None}
    wanted = {"image": image, "label": label, **optional, **named}
    place = {role: column(header, name, role, source) for role, name in wanted.items()}
    extra = [index for index, name in enumerate(header) if name and index not in place.values()]
    if "" in header:
        draft.notes.append(f"{source}: {header.count('')} column(s) without a name were left out")
    for line, values in rows:
        cells = {role: values[index] for role, index in place.items()}
        metadata = {header[index]: values[index] for index in extra}
        path = file.parent / cells["image"]
        draft.add(
            cells.get("split", "train"),
            path,
            cells["label"],
            f"{source}:{line}",
            cells.get("group") or None,
            metadata,
        )
    return draft.write("a row an image below the header")


def convert_roboflow(root: str | os.PathLike[str]) -> Conversion:
    """Annotate a classification export of Roboflow: "folder" or "multi-class" (`_classes.csv` in each split).

    Its JSONL export needs no conversion: that is read, checked and left as it is. Roboflow calls the augmented copies
    of one source image `name_jpg.rf.<hash>.jpg`. What precedes ".rf." becomes the row's group, so that a later split
    keeps the copies together (and with them different sources of one name).

    Raises:
        DataError: the root is no such export, a split has annotations already, or rows of `_classes.csv` are
            malformed, name no image, or do not have exactly one class. All such rows are named.
    """
    draft = _Draft(_folder(root))
    folders = _split_folders(draft.root)
    if any(next(folder.glob("_annotations*.jsonl"), None) for _, folder in folders):
        counts = {split: len(read_split(draft.root, split)) for split in SPLITS}
        found = ", ".join(f"{count} in {split}" for split, count in counts.items() if count)
        return Conversion(
            {}, {}, (f"Roboflow's JSONL is read as it is ({found}); nothing has to be done",)
        )
    tables = [folder for _, folder in folders if (folder / _CLASSES_CSV).is_file()]
    for split, folder in folders:
        if tables:
            _add_one_hot(draft, split, folder)
        else:
            draft.add_classes(split, folder, roboflow_stem)
    return draft.write(
        "ROOT/train/CLASS/*.jpg or ROOT/train/_classes.csv, as a classification export has them"
    )


def roboflow_stem(name: str) -> str | None:
    """Return what the augmented copies of one source image share in their file names, or None for other names."""
    return name.rpartition(".rf.")[0] or None


def encode_row(
    folder: Path,
    image: Path,
    label: str,
    group: str | None = None,
    metadata: Mapping[str, JsonValue] | None = None,
) -> bytes:
    """Return one line of an annotation file that lies in `folder`; both paths are absolute and free of links."""
    row: dict[str, object] = {
        "image": PurePath(os.path.relpath(image, folder)).as_posix(),
        "suffix": label,
    }
    row |= {"group": group} if group is not None else {}
    row |= {"metadata": dict(metadata)} if metadata else {}
    return (json.dumps(row, ensure_ascii=False) + "\n").encode()


@dataclass(slots=True)
class _Draft:
    """Encoded rows by split, and what is wrong with those that cannot be annotated."""

    root: Path
    rows: dict[Split, list[bytes]] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(
        self,
        split: str,
        image: Path,
        label: str,
        source: str,
        group: str | None,
        metadata: Mapping[str, str],
    ) -> None:
        target = _SPLIT_NAMES.get(split.lower())
        if target is None:
            self.findings.append(f"{source}: split {split!r} is none of {', '.join(_SPLIT_NAMES)}")
        elif fault := _fault(image, label, self.root):
            self.findings.append(f"{source}: {fault}")
        else:
            folder = Path(os.path.realpath(self.root / target))
            self.rows.setdefault(target, []).append(
                encode_row(folder, image.resolve(), label, group, metadata)
            )

    def add_classes(
        self, split: Split, folder: Path, group_of: Callable[[str], str | None]
    ) -> None:
        left_out: Counter[str] = Counter()
        for child in sorted(_visible(folder)):
            if not child.is_dir():
                left_out["image(s) in no class folder" if _is_image(child) else _NO_IMAGE] += 1
                continue
            paths = list(_walk(child))
            images = [path for path in paths if _is_image(path)]
            links = sum(path.is_dir() for path in paths)
            left_out += {"link(s) to folders": links, _NO_IMAGE: len(paths) - len(images) - links}
            left_out["class folder(s) without an image"] += not images
            for path in images:
                source = ascii(path.relative_to(self.root).as_posix())[1:-1]
                self.add(split, path, child.name, source, group_of(path.name), {})
        name = folder.relative_to(self.root).as_posix()
        self.notes += [
            f"{name}: {count} {what} left out" for what, count in left_out.items() if count
        ]

    def write(self, expected: str) -> Conversion:
        """Write a file for each split that has rows, if none of them has annotations and no row is at fault."""
        for split in self.rows or SPLITS:
            if existing := next((self.root / split).rglob("*.jsonl"), None):
                raise DataError(
                    f"{existing}: {split} has annotations already; they are kept. Move them away first"
                )
        if self.findings:
            summary = f"{self.root}: {len(self.findings)} row(s) or image(s) cannot be annotated"
            raise DataError.from_findings(
                summary, self.findings, "Correct or remove those named; nothing was written."
            )
        if not self.rows:
            raise DataError(
                "\n  ".join(
                    [f"{self.root}: no image to annotate; expected {expected}", *self.notes]
                )
            )
        if "valid" not in self.rows:
            self.notes.append("there is no valid split; make one with `cls-data split`")
        files = {split: self.root / split / FILE_NAME for split in SPLITS if split in self.rows}
        for split, file in files.items():
            write_atomically(file, b"".join(self.rows[split]))
        return Conversion(
            files, {split: len(self.rows[split]) for split in files}, tuple(self.notes)
        )


def _add_one_hot(draft: _Draft, split: Split, folder: Path) -> None:
    """Add the rows of a split's `_classes.csv`: `filename, class, class, ...` with a 1 below the image's class."""
    source = (folder / _CLASSES_CSV).relative_to(draft.root).as_posix()
    if not (folder / _CLASSES_CSV).is_file():
        draft.findings.append(f"{source}: missing, though another split has one")
        return
    header, rows = read_table(folder / _CLASSES_CSV, source)
    place = column(header, "filename", "image", source)
    listed = set()
    for line, padded in rows:
        values = [value.strip() for value in padded]  # Roboflow writes a space after every comma
        marks = {
            name: value
            for index, (name, value) in enumerate(zip(header, values, strict=True))
            if index != place
        }
        classes = [name for name, mark in marks.items() if mark == "1"]
        listed.add(values[place])
        if set(marks.values()) - {"0", "1"}:
            draft.findings.append(f"{source}:{line}: a value is neither 0 nor 1")
        elif len(classes) != 1:
            named = f"{len(classes)} classes ({', '.join(classes)})" if classes else "no class"
            draft.findings.append(
                f"{source}:{line}: {named}; an image has exactly one (is it a multi-label export?)"
            )
        else:
            name = values[place]
            draft.add(split, folder / name, classes[0], f"{source}:{line}", roboflow_stem(name), {})
    if forgotten := sum(_is_image(path) and path.name not in listed for path in _visible(folder)):
        draft.notes.append(
            f"{split}: {forgotten} image(s) that {_CLASSES_CSV} does not name left out"
        )


def _folder(root: str | os.PathLike[str]) -> Path:
    base = Path(root).resolve()
    if not base.is_dir():
        raise DataError(f"{root}: no such folder; name the folder that holds the images")
    return base


def _split_folders(root: Path) -> list[tuple[Split, Path]]:
    folders = sorted(path for path in _visible(root) if path.is_dir())
    return [
        (_SPLIT_NAMES[path.name.lower()], path)
        for path in folders
        if path.name.lower() in _SPLIT_NAMES
    ]


def _visible(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if not path.name.startswith("."))


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder in sorted order, and links to folders, which are not entered."""
    for path in sorted(_visible(folder)):
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)
        else:
            yield path


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.is_dir()


def _fault(image: Path, label: str, root: Path) -> str | None:
    """Return what keeps `read_split` from reading such a row back, if anything does."""
    name = ascii(str(image)[:200])
    try:
        real = Path(os.path.realpath(image))
        str(real).encode()
        is_file = real.is_file()
    except UnicodeEncodeError:
        return f"image {name} has a name that is not UTF-8; rename it"
    except (
        OSError,
        ValueError,
    ) as error:  # a name longer than the file system allows, or a NUL in it
        return f"image {name} cannot be looked up ({error})"
    if not real.is_relative_to(root):
        return f"image {name} leaves the data root {root}"
    if re.search(r"[\x00-\x1f\x7f]", label):
        return f"label {label[:60]!r} holds a control character"
    return None if is_file else f"image {name} does not exist"
