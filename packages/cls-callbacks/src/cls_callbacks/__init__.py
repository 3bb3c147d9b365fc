"""Lightning callbacks for checkpointing, monitoring, and tuning of image classifiers."""

from cls_callbacks.checkpointing.atomic_io import AtomicCheckpointIO, CheckpointNotSavedError
from cls_callbacks.checkpointing.best_and_last import BestAndLastCheckpoint, CheckpointScore
from cls_callbacks.checkpointing.checkpoint_files import (
    DamagedCheckpointError,
    remove_checkpoint,
    rename_checkpoint,
    verify_checkpoint,
)
from cls_callbacks.checkpointing.ema import EMA
from cls_callbacks.checkpointing.preemption import PreemptionCheckpoint, TrainingInterrupted
from cls_callbacks.checkpointing.rank_agreement import TIME_TO_CONNECT, connect_ranks, set_timeout
from cls_callbacks.finders.batch_size_finder import FastestBatchSizeFinder
from cls_callbacks.finders.lr_finder import LRFinder
from cls_callbacks.observers.augmented_samples import AugmentedSamplesPlot
from cls_callbacks.observers.confusion_matrix import ConfusionMatrixPlot
from cls_callbacks.observers.dataset_statistics import DatasetStatisticsWriter
from cls_callbacks.observers.epoch_summary import EpochSummary
from cls_callbacks.observers.grad_cam import GradCamWriter
from cls_callbacks.observers.gradient_norm import GradientNormMonitor
from cls_callbacks.observers.model_info import ModelInfoWriter
from cls_callbacks.observers.plots import log_image
from cls_callbacks.observers.predictions_writer import PredictionsWriter
from cls_callbacks.observers.progress_bar import EpochProgressBar
from cls_callbacks.observers.sample_predictions import SamplePredictionsPlot
from cls_callbacks.observers.sampler_distribution import SamplerDistributionWriter
from cls_callbacks.observers.throughput import ImageThroughputMonitor
from cls_callbacks.observers.training_history import TrainingHistoryWriter
from cls_callbacks.observers.training_warnings import TrainingWarnings
from cls_callbacks.remote.callback import RemotePushCallback
from cls_callbacks.remote.lease import LeaseError
from cls_callbacks.remote.mirror import RemoteMirror
from cls_callbacks.remote.pull import RemoteConflictError
from cls_callbacks.remote.storage import open_remote_folder
from cls_callbacks.remote.storage_errors import RemoteStorageError

__all__ = [
    "EMA",
    "TIME_TO_CONNECT",
    "AtomicCheckpointIO",
    "AugmentedSamplesPlot",
    "BestAndLastCheckpoint",
    "CheckpointNotSavedError",
    "CheckpointScore",
    "ConfusionMatrixPlot",
    "DamagedCheckpointError",
    "DatasetStatisticsWriter",
    "EpochProgressBar",
    "EpochSummary",
    "FastestBatchSizeFinder",
    "GradCamWriter",
    "GradientNormMonitor",
    "ImageThroughputMonitor",
    "LRFinder",
    "LeaseError",
    "ModelInfoWriter",
    "PredictionsWriter",
    "PreemptionCheckpoint",
    "RemoteConflictError",
    "RemoteMirror",
    "RemotePushCallback",
    "RemoteStorageError",
    "SamplePredictionsPlot",
    "SamplerDistributionWriter",
    "TrainingHistoryWriter",
    "TrainingInterrupted",
    "TrainingWarnings",
    "connect_ranks",
    "log_image",
    "open_remote_folder",
    "remove_checkpoint",
    "rename_checkpoint",
    "set_timeout",
    "verify_checkpoint",
]
