"""Read class folders: `ROOT/{train,valid,test}/CLASS/**/image`, or `ROOT/CLASS/**/image`."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cls_data.annotations.image_paths import is_utf8
from cls_data.annotations.reading import Record, Split
from cls_data.annotations.roboflow_names import roboflow_stem
from cls_data.annotations.rows import CONTROL_CHARACTER
from cls_data.errors import DataError
from cls_export.contract import image_folder
from cls_export.contract.image_folder import FoundImages, find_images, is_hidden
from cls_export.contract.text import escape_control_characters, short_name

SPLIT_FOLDERS: Mapping[str, Split] = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "val": "valid",
    "validation": "valid",
    "test": "test",
    "testing": "test",
}
"""Names of split folders, in lower case."""

_MAX_NAMES = 5
_EXPECTED = "expected ROOT/train/CLASS/image.jpg or ROOT/CLASS/image.jpg"


@dataclass(slots=True)
class ClassFolders:
    """The images in class folders.

    Attributes:
        records: Rows by split, sorted by id; under `train` if there are no split folders.
        has_splits: Whether there are split folders.
        notes: What was skipped, as sentences for the user.
    """

    records: dict[Split, list[Record]] = field(default_factory=dict)
    has_splits: bool = False
    notes: list[str] = field(default_factory=list)


def read_class_folders(root: Path) -> ClassFolders:
    """Read the class folders of a data root, which is resolved. Contents of images are not read.

    A folder is a split if its name says so and it holds folders; otherwise it is a class. Hidden
    files and folders are skipped. The class of an image is the name of its class folder, whatever
    subfolder it is in. The group is the source image in a Roboflow file name.

    Raises:
        DataError: Train has fewer than two classes with images, it is not clear which folders are
            splits, a name cannot be a label, or a folder cannot be read.
    """
    folders = _subfolders(root)
    splits = find_splits(root)
    found = ClassFolders(has_splits=bool(splits))
    if not splits:
        _add_classes(found, "train", root, root)
        labels = {record.label for record in found.records.get("train", ())}
        classes = [label for label in sorted(labels) if label.lower() in SPLIT_FOLDERS]
        if classes:
            found.notes.append(f"{_list_names(classes)} is read as a class, not as a split")
    for split, folder in sorted(splits.items()):
        _add_classes(found, split, folder, root)

    if splits:
        others = [folder.name for folder in folders if folder not in splits.values()]
        if others:
            found.notes.append(f"skipped {_list_names(others)} next to the split folders")
    labels = {record.label for record in found.records.get("train", ())}
    if len(labels) < 2:
        raise DataError(_describe_lack_of_classes(root, labels, found))
    return found


def has_class_folders(root: Path) -> bool:
    """Return whether a resolved folder can be read as class folders."""
    try:
        read_class_folders(root)
    except DataError:
        return False
    return True


def find_splits(root: Path) -> dict[Split, Path]:
    """Return the split folders of a resolved data root; empty if all folders are classes.

    Raises:
        DataError: It is not clear which folders are splits, or a folder cannot be read.
    """
    splits: dict[Split, Path] = {}
    others = []
    flat = []
    for folder in _subfolders(root):
        split = SPLIT_FOLDERS.get(folder.name.lower())
        if split is None:
            others.append(folder)
        elif not _subfolders(folder):
            flat.append(folder)
        elif split in splits:
            raise DataError(
                f"{root}: {splits[split].name}/ and {folder.name}/ are both the {split} split; "
                "merge them, or rename one of them"
            )
        else:
            splits[split] = folder

    flat_names = _list_names([folder.name for folder in flat])
    if splits and "train" not in splits:
        names = _list_names([folder.name for folder in splits.values()])
        flat_text = f" ({flat_names} has no class folders)" if flat else ""
        raise DataError(f"{root}: there is {names}, but no train split{flat_text}; {_EXPECTED}")
    if len(splits) == 1 and not flat:
        classes = [folder.name for folder in others if has_images(folder)]
        if classes:
            raise DataError(
                f"{root}: {splits['train'].name}/ looks like a split, and {_list_names(classes)} "
                "next to it like classes; move the classes into train/, or move the others away"
            )
    # One class may have the name of a split, as among vehicles.
    is_class = len(flat) == 1 and any(map(has_images, others))
    if not splits and not is_class and any(map(has_images, flat)):
        raise DataError(
            f"{root}: {flat_names} has images, but no class folders; {_EXPECTED}. Images with a "
            "table of labels: `cls-data convert ROOT --from csv`"
        )
    return splits


def _add_classes(found: ClassFolders, split: Split, folder: Path, root: Path) -> None:
    """Add the rows of all class folders in a folder."""
    # One search of the whole folder: a link from one class folder to another does not give its
    # images a second label.
    images = _find_images(folder)
    records: list[Record] = []
    outside = 0
    for path in images.images:
        label, *rest = path.relative_to(folder).parts
        if rest:
            _check_name(path, label, root)
            records.append(_create_record(path, label, root))
        else:
            outside += 1

    place = "" if folder == root else f"{folder.name}/: "
    if outside:
        found.notes.append(f"{place}skipped {outside} image(s) outside of class folders")
    labels = {record.label for record in records}
    empty: list[str] = []
    links: list[str] = []
    for path in _subfolders(folder):
        if path.name not in labels:
            names = links if path.is_symlink() else empty
            names.append(path.name)
    if empty:
        found.notes.append(f"{place}skipped folders without images: {_list_names(empty)}")
    if links:
        found.notes.append(f"{place}skipped links without further images: {_list_names(links)}")
    if images.skipped:
        found.notes.append(f"{place}skipped files: {images.describe_skipped()}")
    if records:
        records.sort(key=lambda record: record.id)
        found.records[split] = records


def _create_record(path: Path, label: str, root: Path) -> Record:
    name = path.relative_to(root).as_posix()
    return Record(
        id=name,
        root=str(root),
        label=label,
        group=roboflow_stem(path.name),
        metadata={},
        source=name,
    )


def _check_name(path: Path, label: str, root: Path) -> None:
    """Raise a `DataError` if the name of a class folder or an image cannot be used."""
    if CONTROL_CHARACTER.search(label):
        raise DataError(
            f"{root}: the name of the class folder {label!r} has a control character; rename it"
        )
    if not is_utf8(path):
        name = ascii(str(path.relative_to(root)))
        raise DataError(f"{root}: the name {name} is not valid UTF-8; rename the file")


def _find_images(folder: Path) -> FoundImages:
    with _described_errors(folder):
        return find_images(folder)


def has_images(folder: Path) -> bool:
    """Return whether a folder or its subfolders have images."""
    with _described_errors(folder):
        return image_folder.has_images(folder)


@contextmanager
def _described_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{error.filename or folder}: cannot be read ({error.strerror})") from error


def _subfolders(folder: Path) -> list[Path]:
    """Return the visible folders in a folder, sorted by name."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if _is_visible_folder(entry)]
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror})") from error
    return [folder / name for name in sorted(names)]


def _is_visible_folder(entry: os.DirEntry[str]) -> bool:
    if is_hidden(entry.name):
        return False
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _describe_lack_of_classes(root: Path, labels: set[str], found: ClassFolders) -> str:
    """Say that there are no two classes, and point to a folder that has them."""
    problem = (
        f"one class, {_list_names(sorted(labels))}" if labels else "no images in class folders"
    )
    hint = _EXPECTED
    for folder in _subfolders(root):
        names = {subfolder.name.lower() for subfolder in _subfolders(folder)}
        is_root = folder.name in labels and len(names) > 1
        if is_root or names & SPLIT_FOLDERS.keys():
            hint = f"did you mean {folder}?"
    tables = sorted(path.name for path in root.glob("[!.]*.jsonl"))
    if tables:
        hint = (
            f"annotations such as {short_name(tables[0])} belong in ROOT/train/, ROOT/valid/, and "
            "ROOT/test/, and state paths of images relative to their own folder"
        )
    notes = "".join(f"\n  {note}" for note in found.notes)
    return escape_control_characters(f"{root}: {problem}; {hint}{notes}")


def _list_names(names: list[str]) -> str:
    """Return folder names for a message, such as "a/, b/, and 3 more"."""
    shown = [f"{short_name(name)}/" for name in names[:_MAX_NAMES]]
    if len(names) > _MAX_NAMES:
        shown.append(f"and {len(names) - _MAX_NAMES} more")
    return ", ".join(shown)
