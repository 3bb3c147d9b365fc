"""Build the data, the model, and the trainer of a run from its configuration."""

from cls_train.builders.callbacks import Callbacks, build_callbacks
from cls_train.builders.data import build_data, build_preprocessing
from cls_train.builders.loggers import close_loggers, closing_loggers, open_loggers
from cls_train.builders.model import build_module, build_network, record_stem
from cls_train.builders.nodes import check_nodes
from cls_train.builders.stopping import describe_stop
from cls_train.builders.trainer import (
    build_evaluation_trainer,
    build_trainer,
    optimize_for_device,
    warn_about_slow_precision,
)
from cls_train.builders.trainer_batches import count_validation_rows

__all__ = [
    "Callbacks",
    "build_callbacks",
    "build_data",
    "build_evaluation_trainer",
    "build_module",
    "build_network",
    "build_preprocessing",
    "build_trainer",
    "check_nodes",
    "close_loggers",
    "closing_loggers",
    "count_validation_rows",
    "describe_stop",
    "open_loggers",
    "optimize_for_device",
    "record_stem",
    "warn_about_slow_precision",
]
