"""From annotated image folders to augmented batches on the training device."""

from cls_data.annotations import Record, read_split
from cls_data.augmentation import Augmentation, LightAugmentation
from cls_data.batch import ClassificationBatch
from cls_data.classes import balancing_weights, class_to_idx
from cls_data.config import DataModuleConfig
from cls_data.datamodule import ClassificationDataModule
from cls_data.errors import DataError
from cls_data.files import write_atomically
from cls_data.outputs import EvaluationOutputs, GathersOutputs, Predictions
from cls_data.preprocessing import ImagePreprocessing
from cls_data.sampling import BatchPlan, EpochSampler, SequentialSampler
from cls_data.statistics import DatasetStatistics
from cls_data.store import ImageStore
from cls_data.synthetic import SyntheticNumbers

__all__ = [
    "Augmentation",
    "BatchPlan",
    "ClassificationBatch",
    "ClassificationDataModule",
    "DataError",
    "DataModuleConfig",
    "DatasetStatistics",
    "EpochSampler",
    "EvaluationOutputs",
    "GathersOutputs",
    "ImagePreprocessing",
    "ImageStore",
    "LightAugmentation",
    "Predictions",
    "Record",
    "SequentialSampler",
    "SyntheticNumbers",
    "balancing_weights",
    "class_to_idx",
    "read_split",
    "write_atomically",
]
