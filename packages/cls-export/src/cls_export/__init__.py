"""Run an exported image classifier without PyTorch.

Importing this package needs numpy, Pillow, pydantic, and onnxruntime. Names are imported on first
use, so `import cls_export.contract` does not load onnxruntime. Code that needs PyTorch or ONNX is
in `cls_export.convert`, which needs `pip install "cls-export[torch]"`.

Importing it turns off the telemetry of onnxruntime, unless the environment variable
ORT_DISABLE_TELEMETRY is set.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cls_export.bundle.golden import GoldenReport, verify_bundle
    from cls_export.contract.calibration import Calibration, Reject
    from cls_export.contract.errors import (
        BundleError,
        ConversionError,
        ImageError,
        RemoteBundleError,
        TransferError,
        VerificationError,
    )
    from cls_export.contract.labels_mapping import (
        LabelsMapping,
        Normalization,
        Provenance,
        ScoredMetric,
    )
    from cls_export.contract.preprocessing import Preprocessing
    from cls_export.runtime.bundle_files import Bundle
    from cls_export.runtime.classifier import Classifier
    from cls_export.runtime.predictions import Prediction
    from cls_export.runtime.tracks import TrackPrediction
    from cls_export.sharing.pull import pull_bundle
    from cls_export.sharing.push import push_bundle

_MODULES = {
    "Bundle": "runtime.bundle_files",
    "BundleError": "contract.errors",
    "Calibration": "contract.calibration",
    "Classifier": "runtime.classifier",
    "ConversionError": "contract.errors",
    "GoldenReport": "bundle.golden",
    "ImageError": "contract.errors",
    "LabelsMapping": "contract.labels_mapping",
    "Normalization": "contract.labels_mapping",
    "Prediction": "runtime.predictions",
    "Preprocessing": "contract.preprocessing",
    "Provenance": "contract.labels_mapping",
    "Reject": "contract.calibration",
    "RemoteBundleError": "contract.errors",
    "ScoredMetric": "contract.labels_mapping",
    "TrackPrediction": "runtime.tracks",
    "TransferError": "contract.errors",
    "VerificationError": "contract.errors",
    "pull_bundle": "sharing.pull",
    "push_bundle": "sharing.push",
    "verify_bundle": "bundle.golden",
}
"""The module of each public name."""

__all__ = [
    "Bundle",
    "BundleError",
    "Calibration",
    "Classifier",
    "ConversionError",
    "GoldenReport",
    "ImageError",
    "LabelsMapping",
    "Normalization",
    "Prediction",
    "Preprocessing",
    "Provenance",
    "Reject",
    "RemoteBundleError",
    "ScoredMetric",
    "TrackPrediction",
    "TransferError",
    "VerificationError",
    "pull_bundle",
    "push_bundle",
    "verify_bundle",
]


# onnxruntime 1.32 has telemetry on by default. Without this, it contacts a server, warns where
# it cannot write to the home folder, and keeps forked processes from ending.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_MODULES[name]}")
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
