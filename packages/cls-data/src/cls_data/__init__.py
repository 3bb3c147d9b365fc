"""Annotated image folders to augmented batches on the training device."""

from cls_data.annotations.classes import (
    balancing_weights,
    build_class_to_idx,
    effective_number_weights,
)
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
from cls_data.evaluation_mode import evaluation_mode
from cls_data.gate import CheckReport, GateConfig, check
from cls_data.images.store import ImageStore
from cls_data.loading.batches import ClassificationBatch
from cls_data.loading.malloc import keep_freed_memory
from cls_data.loading.samplers import BatchPlan, EpochSampler, EvaluationSampler
from cls_data.predictions import Predictions
from cls_data.splits.splitting import select_fold
from cls_data.statistics.dataset import DatasetStatistics
from cls_data.synthetic.numbers import SyntheticNumbers

__all__ = [
    "Augmentation",
    "AugmentationOp",
    "AugmentationPipeline",
    "AugmentationStage",
    "BatchPlan",
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
    "read_split",
    "select_fold",
]
