import subprocess
import sys

import cls_export


def test_the_package_offers_these_names_and_no_others() -> None:
    assert set(cls_export.__all__) == {
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
    }
    assert all(hasattr(cls_export, name) for name in cls_export.__all__)


def test_importing_the_package_brings_in_no_pytorch() -> None:
    code = "import sys, cls_export, cls_export.cli.main; print({'torch', 'onnx', 'lightning'} & set(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert result.stdout.strip() == "set()"
