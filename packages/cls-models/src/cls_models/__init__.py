"""Image classifiers: torchvision backbones, transfer, losses, optimizers, schedules, and the LightningModule."""

from cls_models.acceleration.compilation import Compilation
from cls_models.acceleration.cuda_graph import CudaGraph
from cls_models.acceleration.hardware import (
    HardwareError,
    check_batch_size_for_batch_norm,
    check_precision,
    precision_for,
    prepare_for_device,
)
from cls_models.acceleration.small_conv import SmallConv2d, replace_small_convs
from cls_models.backbones.heads import BackboneError, head_name
from cls_models.backbones.init_from import (
    RemappedHead,
    SourceRun,
    find_source_run,
    load_by_class_name,
)
from cls_models.backbones.layer_ids import layer_ids
from cls_models.backbones.pretrained import PretrainedInput, get_pretrained_input
from cls_models.backbones.timm_backbones import build_timm_backbone, get_timm_pretrained_input
from cls_models.backbones.torchvision_backbones import BACKBONES, build_backbone
from cls_models.classification_module import ClassificationModule
from cls_models.finetuning.distillation import (
    Distillation,
    DistillationError,
    distillation_from_run,
    load_teacher,
)
from cls_models.finetuning.feature_cache import (
    FeatureCache,
    FeatureCacheError,
    check_features_cacheable,
)
from cls_models.finetuning.transfer import Transfer
from cls_models.losses import FocalLoss, LogitAdjustedLoss
from cls_models.metrics import VALIDATION_METRICS, classification_metrics
from cls_models.nonfinite import NotFiniteLossError
from cls_models.optim.muon import Muon
from cls_models.optim.param_groups import build_optimizer, param_groups
from cls_models.optim.schedules import (
    one_cycle,
    plateau,
    warmup_constant,
    warmup_cosine,
    warmup_linear,
)
from cls_models.torch_file import TorchFileError, read_torch_file

__all__ = [
    "BACKBONES",
    "VALIDATION_METRICS",
    "BackboneError",
    "ClassificationModule",
    "Compilation",
    "CudaGraph",
    "Distillation",
    "DistillationError",
    "FeatureCache",
    "FeatureCacheError",
    "FocalLoss",
    "HardwareError",
    "LogitAdjustedLoss",
    "Muon",
    "NotFiniteLossError",
    "PretrainedInput",
    "RemappedHead",
    "SmallConv2d",
    "SourceRun",
    "TorchFileError",
    "Transfer",
    "build_backbone",
    "build_optimizer",
    "build_timm_backbone",
    "check_batch_size_for_batch_norm",
    "check_features_cacheable",
    "check_precision",
    "classification_metrics",
    "distillation_from_run",
    "find_source_run",
    "get_pretrained_input",
    "get_timm_pretrained_input",
    "head_name",
    "layer_ids",
    "load_by_class_name",
    "load_teacher",
    "one_cycle",
    "param_groups",
    "plateau",
    "precision_for",
    "prepare_for_device",
    "read_torch_file",
    "replace_small_convs",
    "warmup_constant",
    "warmup_cosine",
    "warmup_linear",
]
