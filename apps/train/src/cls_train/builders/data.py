"""Build the preprocessing and the data module."""

from cls_data import Augmentation, ClassificationDataModule, DataModuleConfig, MixupCutmix
from cls_export import Preprocessing
from cls_train.composition.config import RunConfig
from cls_train.composition.instantiate import build


def build_preprocessing(config: RunConfig) -> Preprocessing:
    """Build the preprocessing that training and the exported bundle share."""
    return build(config.preprocessing, "preprocessing", Preprocessing)


def build_data(
    config: RunConfig, preprocessing: Preprocessing, *, skip_gate: bool = False
) -> ClassificationDataModule:
    """Build the data module. Nothing is read yet.

    Args:
        config: The run.
        preprocessing: Turns image files into model input.
        skip_gate: Leave out the data gate, for data that has passed it.
    """
    augmentation = None
    if config.augmentation:
        augmentation = build(config.augmentation, "augmentation", Augmentation)  # type: ignore[type-abstract]
    mixing = None
    if config.mixing:
        mixing = build(config.mixing, "mixing", MixupCutmix)
    settings = build(config.data, "data", DataModuleConfig)
    return ClassificationDataModule(
        settings,
        preprocessing,
        augmentation,
        mixing=mixing,
        skip_gate=skip_gate,
        prefetch=config.acceleration == "auto",
        progress=True,
    )
