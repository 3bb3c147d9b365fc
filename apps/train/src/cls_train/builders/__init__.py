"""Build the data, the model, and the trainer of a run from its configuration."""

from cls_train.builders.data import build_data, build_preprocessing
from cls_train.builders.model import build_module, build_network, record_stem
from cls_train.builders.nodes import check_nodes
from cls_train.builders.trainer import build_callbacks, build_trainer, optimize_for_device

__all__ = [
    "build_callbacks",
    "build_data",
    "build_module",
    "build_network",
    "build_preprocessing",
    "build_trainer",
    "check_nodes",
    "optimize_for_device",
    "record_stem",
]
