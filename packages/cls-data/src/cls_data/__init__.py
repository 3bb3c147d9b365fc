"""From annotated image folders to augmented batches on the training device."""

from cls_data.annotations import Record, read_split
from cls_data.augmentation import (
    Augmentation,
    Blur,
    Broadcast,
    BroadcastAugmentation,
    Colour,
    Erasing,
    Geometry,
    LightAugmentation,
    Mixing,
    PerSample,
    PhotoAugmentation,
    Recipe,
)
from cls_data.batch import ClassificationBatch
from cls_data.classes import balancing_weights, class_to_idx, effective_number_weights
from cls_data.config import DataModuleConfig
from cls_data.datamodule import ClassificationDataModule
from cls_data.errors import DataError, LoaderWorkerError
from cls_data.files import write_atomically
from cls_data.gate import CheckReport, GateConfig, check
from cls_data.memory import keep_freed_memory
from cls_data.outputs import EvaluationOutputs, GathersOutputs
from cls_data.predictions import Predictions
from cls_data.preprocessing import ImagePreprocessing
from cls_data.quarantine import Quarantine
from cls_data.sampling import BatchPlan, EpochSampler, SequentialSampler
from cls_data.splitting import fold_of
from cls_data.statistics import DatasetStatistics
from cls_data.store import ImageStore
from cls_data.synthetic import SyntheticNumbers

__all__ = [
    "Augmentation",
    "BatchPlan",
    "Blur",
    "Broadcast",
    "BroadcastAugmentation",
    "CheckReport",
    "ClassificationBatch",
    "ClassificationDataModule",
    "Colour",
    "DataError",
    "DataModuleConfig",
    "DatasetStatistics",
    "EpochSampler",
    "Erasing",
    "EvaluationOutputs",
    "GateConfig",
    "GathersOutputs",
    "Geometry",
    "ImagePreprocessing",
    "ImageStore",
    "LightAugmentation",
    "LoaderWorkerError",
    "Mixing",
    "PerSample",
    "PhotoAugmentation",
    "Predictions",
    "Quarantine",
    "Recipe",
    "Record",
    "SequentialSampler",
    "SyntheticNumbers",
    "balancing_weights",
    "check",
    "class_to_idx",
    "effective_number_weights",
    "fold_of",
    "keep_freed_memory",
    "read_split",
    "write_atomically",
]
