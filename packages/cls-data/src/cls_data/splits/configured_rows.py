"""The rows that a configuration selects."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from cls_data.annotations.class_folders import has_class_folders
from cls_data.annotations.quarantine import Quarantine
from cls_data.annotations.reading import Record, Split
from cls_data.data_source import check_split_names, has_annotations, read_data
from cls_data.errors import DataError
from cls_data.splits.splitting import select_fold

if TYPE_CHECKING:
    from cls_data.config import DataModuleConfig


_REQUIRED_SPLITS: tuple[Split, ...] = ("train", "valid")


def check_split_folders(config: "DataModuleConfig") -> None:
    """Raise a `DataError` if annotations lack the folder of train or valid. Reads no rows.

    A root without any annotations is left to `scan_data`, which knows more about it.
    """
    if config.layout != "jsonl":
        return
    base = Path(os.path.realpath(config.root))
    folder = Path(os.path.normpath(base / config.annotations))
    if not folder.is_relative_to(base) or not has_annotations(folder, base):
        return
    missing = [split for split in _REQUIRED_SPLITS if not (folder / split).is_dir()]
    if missing:
        check_split_names(folder, base)
        raise DataError(_describe_missing_split(config, missing[0]))


def read_records(
    config: "DataModuleConfig", checked: dict[Split, list[Record]] | None = None
) -> dict[Split, list[Record]]:
    """Read the rows of every split that a configuration names, and select the fold if one is set.

    Args:
        config: What to read.
        checked: The rows as the data gate has read them, to save reading them again.

    Raises:
        DataError: As `read_data`; or train or valid is missing; or the fold cannot be made.
    """
    records = checked
    if records is None:
        check_split_folders(config)
        records = _read_all(config)
    for required in _REQUIRED_SPLITS:
        if required not in records:
            raise DataError(_describe_missing_split(config, required))
    if config.fold is not None and config.folds is not None:
        records |= select_fold(
            records["train"],
            records["valid"],
            config.fold,
            config.folds,
        )
    return records


def _read_all(config: "DataModuleConfig") -> dict[Split, list[Record]]:
    without_images: tuple[Split, ...] = ()
    if config.shards is not None:
        without_images = ("train",)
    return read_data(
        config.root,
        layout=config.layout,
        annotations=config.annotations,
        quarantine=load_quarantine(config),
        split=config.split,
        without_images=without_images,
    )


def load_quarantine(config: "DataModuleConfig") -> Quarantine | None:
    """Load the rows that a configuration leaves out; None without a file.

    Raises:
        DataError: The file cannot be read, or a line is wrong.
    """
    if config.quarantine is None:
        return None
    try:
        return Quarantine.load(config.quarantine)
    except DataError as error:
        raise DataError(f"data.quarantine: {error}") from error.__cause__


def _describe_missing_split(config: "DataModuleConfig", split: Split) -> str:
    if config.layout == "folder":
        return (
            f"{config.root}: no image is left for {split}, because the images of a class with a "
            "single image or group of images stay in train, or because of the quarantine; add "
            "images"
        )
    message = (
        f"{config.root / config.annotations}: no {split}/ folder; training needs train/ and valid/"
    )
    base = Path(os.path.realpath(config.root))
    if not config.annotations and has_class_folders(base):
        message += ". There are also class folders, which data=folder reads and splits"
    return message
