"""Runs an exported image classifier without PyTorch, with the answers that training measured.

Importing this package needs numpy, Pillow, pydantic and onnxruntime. What needs PyTorch lives in
`cls_export.exporter`, behind the extra `cls-export[torch]`.
"""

from cls_export.bundle import Bundle
from cls_export.calibration import Calibration, Reject
from cls_export.errors import BundleError, ImageError
from cls_export.golden import GoldenReport, verify_bundle
from cls_export.labels import LabelsMapping, Normalization, Provenance, ScoredMetric
from cls_export.predictions import Prediction
from cls_export.preprocessing import Preprocessing
from cls_export.runtime import Classifier
from cls_export.tracks import TrackPrediction

__all__ = [
    "Bundle",
    "BundleError",
    "Calibration",
    "Classifier",
    "GoldenReport",
    "ImageError",
    "LabelsMapping",
    "Normalization",
    "Prediction",
    "Preprocessing",
    "Provenance",
    "Reject",
    "ScoredMetric",
    "TrackPrediction",
    "verify_bundle",
]
