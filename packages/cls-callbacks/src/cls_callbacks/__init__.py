"""Lightning callbacks that say which weights are which, keep them safe, and show what training does."""

from cls_callbacks.checkpointing.atomic_io import (
    AtomicCheckpointIO,
    CheckpointNotSavedError,
    DamagedCheckpointError,
    verify_checkpoint,
)
from cls_callbacks.checkpointing.best_and_last import BestAndLastCheckpoint, ScoredWeights
from cls_callbacks.checkpointing.ema import EMA
from cls_callbacks.checkpointing.preemption import Interrupted, PreemptionCheckpoint
from cls_callbacks.finders.batch_size_finder import FastestBatchSizeFinder
from cls_callbacks.finders.lr_finder import LRFinder
from cls_callbacks.observers.augmented_samples import AugmentedSamples
from cls_callbacks.observers.confusion_matrix import ConfusionMatrix
from cls_callbacks.observers.dataset_statistics import DatasetStatisticsCallback
from cls_callbacks.observers.epoch_log import EpochLog
from cls_callbacks.observers.figures import log_picture
from cls_callbacks.observers.grad_cam import GradCam
from cls_callbacks.observers.gradient_norm import GradientNorm
from cls_callbacks.observers.model_info import ModelInfo
from cls_callbacks.observers.predictions_writer import PredictionsWriter
from cls_callbacks.observers.progress_bar import ProgressBar
from cls_callbacks.observers.sample_predictions import SamplePredictions
from cls_callbacks.observers.sampler_distribution import SamplerDistribution
from cls_callbacks.observers.throughput import Throughput
from cls_callbacks.observers.training_history import TrainingHistory
from cls_callbacks.observers.training_warnings import TrainingWarnings

__all__ = [
    "EMA",
    "AtomicCheckpointIO",
    "AugmentedSamples",
    "BestAndLastCheckpoint",
    "CheckpointNotSavedError",
    "ConfusionMatrix",
    "DamagedCheckpointError",
    "DatasetStatisticsCallback",
    "EpochLog",
    "FastestBatchSizeFinder",
    "GradCam",
    "GradientNorm",
    "Interrupted",
    "LRFinder",
    "ModelInfo",
    "PredictionsWriter",
    "PreemptionCheckpoint",
    "ProgressBar",
    "SamplePredictions",
    "SamplerDistribution",
    "ScoredWeights",
    "Throughput",
    "TrainingHistory",
    "TrainingWarnings",
    "log_picture",
    "verify_checkpoint",
]
