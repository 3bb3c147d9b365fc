"""Lightning callbacks that say which weights are which, keep them safe, and show what training does."""

from cls_callbacks.atomic_io import (
    AtomicCheckpointIO,
    CheckpointNotSavedError,
    DamagedCheckpointError,
    verify_checkpoint,
)
from cls_callbacks.augmented_samples import AugmentedSamples
from cls_callbacks.batch_size_suggestion import BatchSizeSuggestion
from cls_callbacks.checkpoint import BestAndLast, ScoredWeights
from cls_callbacks.confusion import ConfusionMatrix
from cls_callbacks.dataset_statistics import DatasetStatisticsCallback
from cls_callbacks.early_warnings import EarlyWarnings
from cls_callbacks.ema import EMA
from cls_callbacks.epoch_log import EpochLog
from cls_callbacks.figures import log_picture
from cls_callbacks.grad_cam import GradCam
from cls_callbacks.gradient_norm import GradientNorm
from cls_callbacks.history import TrainingHistory
from cls_callbacks.lr_suggestion import LearningRateSuggestion
from cls_callbacks.model_info import ModelInfo
from cls_callbacks.predictions import PredictionsWriter
from cls_callbacks.progress import ProgressBar
from cls_callbacks.sample_predictions import SamplePredictions
from cls_callbacks.sampler_distribution import SamplerDistribution
from cls_callbacks.signals import Interrupted, SaveOnSignal
from cls_callbacks.throughput import Throughput

__all__ = [
    "EMA",
    "AtomicCheckpointIO",
    "AugmentedSamples",
    "BatchSizeSuggestion",
    "BestAndLast",
    "CheckpointNotSavedError",
    "ConfusionMatrix",
    "DamagedCheckpointError",
    "DatasetStatisticsCallback",
    "EarlyWarnings",
    "EpochLog",
    "GradCam",
    "GradientNorm",
    "Interrupted",
    "LearningRateSuggestion",
    "ModelInfo",
    "PredictionsWriter",
    "ProgressBar",
    "SamplePredictions",
    "SamplerDistribution",
    "SaveOnSignal",
    "ScoredWeights",
    "Throughput",
    "TrainingHistory",
    "log_picture",
    "verify_checkpoint",
]
