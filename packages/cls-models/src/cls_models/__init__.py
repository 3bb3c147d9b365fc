"""Image classifiers: torchvision backbones, transfer, losses, optimisers, schedules, and the LightningModule."""

from cls_models.backbones import BACKBONES, build_backbone
from cls_models.classifier import Classifier
from cls_models.compilation import Compilation
from cls_models.cuda_graph import CudaGraph
from cls_models.distillation import Distillation, DistillationError, distillation_from_run, load_teacher
from cls_models.feature_cache import FeatureCache, FeatureCacheError, refuse_what_changes_between_epochs
from cls_models.hardware import HardwareError, check_precision, precision_for, prepare_for_device, refuse_batch_of_one
from cls_models.heads import BackboneError, head_name
from cls_models.layers import layer_numbers
from cls_models.losses import FocalLoss, LogitAdjustedLoss
from cls_models.metrics import VALIDATION_METRICS, classification_metrics
from cls_models.muon import Muon
from cls_models.not_finite import NotFiniteLossError
from cls_models.optimisation import build_optimizer, parameter_groups
from cls_models.remapping import EarlierRun, Remapped, earlier_run, load_by_class_name
from cls_models.schedules import one_cycle, plateau, warmup_constant, warmup_cosine, warmup_linear
from cls_models.small_maps import SmallMapConv2d, write_out_small_maps
from cls_models.timm_backbones import build_timm_backbone, timm_pretrained_input
from cls_models.transfer import Transfer
from cls_models.weights import PretrainedInput, pretrained_input

__all__ = [
    "BACKBONES",
    "VALIDATION_METRICS",
    "BackboneError",
    "Classifier",
    "Compilation",
    "CudaGraph",
    "Distillation",
    "DistillationError",
    "EarlierRun",
    "FeatureCache",
    "FeatureCacheError",
    "FocalLoss",
    "HardwareError",
    "LogitAdjustedLoss",
    "Muon",
    "NotFiniteLossError",
    "PretrainedInput",
    "Remapped",
    "SmallMapConv2d",
    "Transfer",
    "build_backbone",
    "build_optimizer",
    "build_timm_backbone",
    "check_precision",
    "classification_metrics",
    "distillation_from_run",
    "earlier_run",
    "head_name",
    "layer_numbers",
    "load_by_class_name",
    "load_teacher",
    "one_cycle",
    "parameter_groups",
    "plateau",
    "precision_for",
    "prepare_for_device",
    "pretrained_input",
    "refuse_batch_of_one",
    "refuse_what_changes_between_epochs",
    "timm_pretrained_input",
    "warmup_constant",
    "warmup_cosine",
    "warmup_linear",
    "write_out_small_maps",
]
