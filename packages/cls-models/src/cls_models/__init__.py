"""Image classifiers: backbones, transfer learning, losses, optimizers, and the LightningModule.

Names are imported on first use, so `import cls_models.metric_names` does not load PyTorch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cls_models.acceleration.batch_norm_check import check_batch_size_for_batch_norm
    from cls_models.acceleration.compilation import CompileCallback
    from cls_models.acceleration.cuda_graph import CudaGraphCallback
    from cls_models.acceleration.errors import HardwareError
    from cls_models.acceleration.memory_format import prepare_for_device
    from cls_models.acceleration.precision import check_precision, choose_precision
    from cls_models.acceleration.small_conv import SmallConv2d, replace_small_convs
    from cls_models.backbones.heads import BackboneError, find_head_name
    from cls_models.backbones.init_from import (
        ClassMatchResult,
        InitCheckpoint,
        find_init_checkpoint,
        load_by_class_name,
    )
    from cls_models.backbones.layer_ids import get_layer_ids
    from cls_models.backbones.names import BACKBONES
    from cls_models.backbones.pretrained import PretrainedInput, get_pretrained_input
    from cls_models.backbones.timm_backbones import build_timm_backbone, get_timm_pretrained_input
    from cls_models.backbones.torchvision_backbones import build_backbone
    from cls_models.classification_module import ClassificationModule
    from cls_models.finetuning.distillation import (
        DistillationError,
        DistillationLoss,
        build_distillation,
        load_teacher,
    )
    from cls_models.finetuning.feature_cache import (
        FeatureCache,
        FeatureCacheError,
        check_features_cacheable,
    )
    from cls_models.finetuning.transfer import Transfer
    from cls_models.losses import FocalLoss, LogitAdjustedLoss
    from cls_models.metric_names import VALIDATION_METRICS
    from cls_models.metrics import build_classification_metrics
    from cls_models.nonfinite import NonfiniteLossError
    from cls_models.optim.muon import Muon
    from cls_models.optim.param_groups import build_optimizer, build_param_groups
    from cls_models.optim.schedules import (
        one_cycle,
        plateau,
        warmup_constant,
        warmup_cosine,
        warmup_linear,
    )
    from cls_models.torch_file import TorchFileError, read_torch_file

_MODULES = {
    "BACKBONES": "backbones.names",
    "BackboneError": "backbones.heads",
    "ClassMatchResult": "backbones.init_from",
    "ClassificationModule": "classification_module",
    "CompileCallback": "acceleration.compilation",
    "CudaGraphCallback": "acceleration.cuda_graph",
    "DistillationError": "finetuning.distillation",
    "DistillationLoss": "finetuning.distillation",
    "FeatureCache": "finetuning.feature_cache",
    "FeatureCacheError": "finetuning.feature_cache",
    "FocalLoss": "losses",
    "HardwareError": "acceleration.errors",
    "InitCheckpoint": "backbones.init_from",
    "LogitAdjustedLoss": "losses",
    "Muon": "optim.muon",
    "NonfiniteLossError": "nonfinite",
    "PretrainedInput": "backbones.pretrained",
    "SmallConv2d": "acceleration.small_conv",
    "TorchFileError": "torch_file",
    "Transfer": "finetuning.transfer",
    "VALIDATION_METRICS": "metric_names",
    "build_backbone": "backbones.torchvision_backbones",
    "build_classification_metrics": "metrics",
    "build_distillation": "finetuning.distillation",
    "build_optimizer": "optim.param_groups",
    "build_param_groups": "optim.param_groups",
    "build_timm_backbone": "backbones.timm_backbones",
    "check_batch_size_for_batch_norm": "acceleration.batch_norm_check",
    "check_features_cacheable": "finetuning.feature_cache",
    "check_precision": "acceleration.precision",
    "choose_precision": "acceleration.precision",
    "find_head_name": "backbones.heads",
    "find_init_checkpoint": "backbones.init_from",
    "get_layer_ids": "backbones.layer_ids",
    "get_pretrained_input": "backbones.pretrained",
    "get_timm_pretrained_input": "backbones.timm_backbones",
    "load_by_class_name": "backbones.init_from",
    "load_teacher": "finetuning.distillation",
    "one_cycle": "optim.schedules",
    "plateau": "optim.schedules",
    "prepare_for_device": "acceleration.memory_format",
    "read_torch_file": "torch_file",
    "replace_small_convs": "acceleration.small_conv",
    "warmup_constant": "optim.schedules",
    "warmup_cosine": "optim.schedules",
    "warmup_linear": "optim.schedules",
}
"""The module of each public name."""

__all__ = [
    "BACKBONES",
    "VALIDATION_METRICS",
    "BackboneError",
    "ClassMatchResult",
    "ClassificationModule",
    "CompileCallback",
    "CudaGraphCallback",
    "DistillationError",
    "DistillationLoss",
    "FeatureCache",
    "FeatureCacheError",
    "FocalLoss",
    "HardwareError",
    "InitCheckpoint",
    "LogitAdjustedLoss",
    "Muon",
    "NonfiniteLossError",
    "PretrainedInput",
    "SmallConv2d",
    "TorchFileError",
    "Transfer",
    "build_backbone",
    "build_classification_metrics",
    "build_distillation",
    "build_optimizer",
    "build_param_groups",
    "build_timm_backbone",
    "check_batch_size_for_batch_norm",
    "check_features_cacheable",
    "check_precision",
    "choose_precision",
    "find_head_name",
    "find_init_checkpoint",
    "get_layer_ids",
    "get_pretrained_input",
    "get_timm_pretrained_input",
    "load_by_class_name",
    "load_teacher",
    "one_cycle",
    "plateau",
    "prepare_for_device",
    "read_torch_file",
    "replace_small_convs",
    "warmup_constant",
    "warmup_cosine",
    "warmup_linear",
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
