"""Image classifiers: torchvision backbones, optimiser groups, schedules, metrics and the LightningModule."""

from cls_models.backbones import BACKBONES, BackboneError, build_backbone
from cls_models.classifier import Classifier
from cls_models.metrics import VALIDATION_METRICS, classification_metrics
from cls_models.optimisation import parameter_groups, warmup_cosine

__all__ = [
    "BACKBONES",
    "VALIDATION_METRICS",
    "BackboneError",
    "Classifier",
    "build_backbone",
    "classification_metrics",
    "parameter_groups",
    "warmup_cosine",
]
