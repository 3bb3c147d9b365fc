"""Runs an exported image classifier without PyTorch, with the answers that training measured.

Importing this package needs numpy, Pillow, pydantic and onnxruntime. What needs PyTorch lives in
`cls_export.exporter`, behind the extra `cls-export[torch]`.
"""

from cls_export.bundle import Bundle
from cls_export.errors import BundleError, ImageError
from cls_export.golden import GoldenReport, verify_bundle
from cls_export.labels import LabelsMapping, Normalization, Provenance, ScoredMetric
from cls_export.preprocessing import Preprocessing
from cls_export.runtime import Classifier, Prediction

__all__ = [
    "Bundle",
    "BundleError",
    "Classifier",
    "GoldenReport",
    "ImageError",
    "LabelsMapping",
    "Normalization",
    "Prediction",
    "Preprocessing",
    "Provenance",
    "ScoredMetric",
    "verify_bundle",
]
