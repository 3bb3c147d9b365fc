"""The data module of a run, for callbacks that read it."""

from lightning.pytorch import Trainer

from cls_data import ClassificationDataModule


def get_datamodule(trainer: Trainer) -> ClassificationDataModule:
    """Return the trainer's data module.

    Raises:
        TypeError: the trainer was given loaders, or another data module.
    """
    data = trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it without declaring it
    if not isinstance(data, ClassificationDataModule):
        raise TypeError(
            f"this callback reads a cls_data.ClassificationDataModule, and the trainer has {type(data).__name__}; "
            "pass one as datamodule=, or leave the callback out"
        )
    return data
