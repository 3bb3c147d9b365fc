"""The data module and the run folder of a trainer."""

from pathlib import Path

from lightning.pytorch import Trainer

from cls_data import ClassificationDataModule
from cls_export.contract.run_layout import RunPaths


def get_datamodule(trainer: Trainer) -> ClassificationDataModule:
    """Return the trainer's data module.

    Raises:
        TypeError: The trainer was given loaders, or another data module.
    """
    data = trainer.datamodule  # type: ignore[attr-defined]  # set by Lightning, not declared
    if not isinstance(data, ClassificationDataModule):
        raise TypeError(
            "expected the trainer's data module to be a cls_data.ClassificationDataModule, "
            f"got {type(data).__name__}; pass one as datamodule=, or remove this callback"
        )
    return data


def get_run_paths(trainer: Trainer) -> RunPaths:
    """Return the paths of the run that the trainer writes to."""
    return RunPaths(Path(trainer.default_root_dir))
