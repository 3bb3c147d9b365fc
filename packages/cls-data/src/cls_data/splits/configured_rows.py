"""The rows that a configuration selects."""

from typing import TYPE_CHECKING

from cls_data.annotations.quarantine import Quarantine
from cls_data.annotations.reading import Record, Split
from cls_data.data_source import read_data
from cls_data.errors import DataError
from cls_data.splits.splitting import select_fold

if TYPE_CHECKING:
    from cls_data.config import DataModuleConfig


def read_records(config: "DataModuleConfig") -> dict[Split, list[Record]]:
    """Read the rows of every split that a configuration names, and select the fold if one is set.

    Raises:
        DataError: As `read_data`; or train or valid is missing; or the fold cannot be made.
    """
    records = read_data(
        config.root,
        layout=config.layout,
        annotations=config.annotations,
        quarantine=load_quarantine(config),
        split=config.split,
    )
    for required in ("train", "valid"):
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
    return f"{config.root}: no {split}/ folder; training needs train/ and valid/"
