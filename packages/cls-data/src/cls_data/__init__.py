"""Annotated image folders to augmented batches on the training device.

Names are imported on first use: `import cls_data.config` and the commands that only read files do
not load PyTorch.
"""

import importlib
from typing import TYPE_CHECKING, Any

# Not lazy: the module has the same name, and importing it would hide the function.
from cls_data.evaluation_mode import evaluation_mode

if TYPE_CHECKING:
    from cls_data.annotations.class_tensors import balancing_weights, effective_number_weights
    from cls_data.annotations.classes import build_class_to_idx
    from cls_data.annotations.quarantine import Quarantine
    from cls_data.annotations.reading import Record, read_split
    from cls_data.augmentation.broadcast import BroadcastDegradation
    from cls_data.augmentation.color_jitter import ColorJitter
    from cls_data.augmentation.filters import GaussianBlur
    from cls_data.augmentation.geometry import GeometricTransform
    from cls_data.augmentation.mixup import MixupCutmix
    from cls_data.augmentation.ops import AugmentationOp, AugmentationStage, OpParameters
    from cls_data.augmentation.pipelines import (
        Augmentation,
        AugmentationPipeline,
        BroadcastAugmentation,
        LightAugmentation,
        PhotoAugmentation,
    )
    from cls_data.augmentation.random_erasing import RandomErasing
    from cls_data.augmentation.random_streams import ParamSampler
    from cls_data.augmentation.torchvision_augmentation import TorchvisionAugmentation
    from cls_data.config import DataModuleConfig
    from cls_data.datamodule import ClassificationDataModule
    from cls_data.errors import DataError, LoaderWorkerError
    from cls_data.evaluation import EvaluationOutputs, HasEvaluationOutputs
    from cls_data.gate import CheckReport, GateConfig, check
    from cls_data.images.store import ImageStore
    from cls_data.loading.batches import BatchShare, ClassificationBatch
    from cls_data.loading.malloc import keep_freed_memory
    from cls_data.loading.samplers import BatchPlan, EpochSampler, EvaluationSampler
    from cls_data.predictions import Predictions
    from cls_data.splits.configured_rows import read_records
    from cls_data.splits.folder_split import FolderSplit
    from cls_data.splits.splitting import select_fold
    from cls_data.statistics.dataset import DatasetStatistics
    from cls_data.synthetic.numbers import SyntheticNumbers

_MODULES = {
    "Augmentation": "augmentation.pipelines",
    "AugmentationOp": "augmentation.ops",
    "AugmentationPipeline": "augmentation.pipelines",
    "AugmentationStage": "augmentation.ops",
    "BatchPlan": "loading.samplers",
    "BatchShare": "loading.batches",
    "BroadcastAugmentation": "augmentation.pipelines",
    "BroadcastDegradation": "augmentation.broadcast",
    "CheckReport": "gate.check",
    "ClassificationBatch": "loading.batches",
    "ClassificationDataModule": "datamodule",
    "ColorJitter": "augmentation.color_jitter",
    "DataError": "errors",
    "DataModuleConfig": "config",
    "DatasetStatistics": "statistics.dataset",
    "EpochSampler": "loading.samplers",
    "EvaluationOutputs": "evaluation",
    "EvaluationSampler": "loading.samplers",
    "FolderSplit": "splits.folder_split",
    "GateConfig": "gate.config",
    "GaussianBlur": "augmentation.filters",
    "GeometricTransform": "augmentation.geometry",
    "HasEvaluationOutputs": "evaluation",
    "ImageStore": "images.store",
    "LightAugmentation": "augmentation.pipelines",
    "LoaderWorkerError": "errors",
    "MixupCutmix": "augmentation.mixup",
    "OpParameters": "augmentation.ops",
    "ParamSampler": "augmentation.random_streams",
    "PhotoAugmentation": "augmentation.pipelines",
    "Predictions": "predictions",
    "Quarantine": "annotations.quarantine",
    "RandomErasing": "augmentation.random_erasing",
    "Record": "annotations.reading",
    "SyntheticNumbers": "synthetic.numbers",
    "TorchvisionAugmentation": "augmentation.torchvision_augmentation",
    "balancing_weights": "annotations.class_tensors",
    "build_class_to_idx": "annotations.classes",
    "check": "gate.check",
    "effective_number_weights": "annotations.class_tensors",
    "keep_freed_memory": "loading.malloc",
    "read_records": "splits.configured_rows",
    "read_split": "annotations.reading",
    "select_fold": "splits.splitting",
}
"""The module of each name that is imported on first use."""

__all__ = [
    "Augmentation",
    "AugmentationOp",
    "AugmentationPipeline",
    "AugmentationStage",
    "BatchPlan",
    "BatchShare",
    "BroadcastAugmentation",
    "BroadcastDegradation",
    "CheckReport",
    "ClassificationBatch",
    "ClassificationDataModule",
    "ColorJitter",
    "DataError",
    "DataModuleConfig",
    "DatasetStatistics",
    "EpochSampler",
    "EvaluationOutputs",
    "EvaluationSampler",
    "FolderSplit",
    "GateConfig",
    "GaussianBlur",
    "GeometricTransform",
    "HasEvaluationOutputs",
    "ImageStore",
    "LightAugmentation",
    "LoaderWorkerError",
    "MixupCutmix",
    "OpParameters",
    "ParamSampler",
    "PhotoAugmentation",
    "Predictions",
    "Quarantine",
    "RandomErasing",
    "Record",
    "SyntheticNumbers",
    "TorchvisionAugmentation",
    "balancing_weights",
    "build_class_to_idx",
    "check",
    "effective_number_weights",
    "evaluation_mode",
    "keep_freed_memory",
    "read_records",
    "read_split",
    "select_fold",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_MODULES[name]}")
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
