"""Compare the predictions of the installed wheel with those of training.

Runs in an environment without PyTorch.
Usage: python compare_predictions.py RUN_FOLDER DATA_ROOT CLS_EXPORT_COMMAND
"""

import importlib.metadata
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

TOLERANCE = 1e-4
DEPENDENCIES = {"numpy", "onnxruntime", "pillow", "pydantic"}
FORBIDDEN = ("torch", "torchvision", "lightning", "onnx")


def check_environment() -> None:
    """Check the dependencies of the wheel and that no training package is installed."""
    for name in FORBIDDEN:
        assert importlib.util.find_spec(name) is None, f"{name} is installed"
    declared = set()
    for line in importlib.metadata.requires("cls-export") or []:
        if "extra" not in line:
            declared.add(line.split(">")[0].strip())
    assert declared == DEPENDENCIES, f"the wheel needs {declared}, expected {DEPENDENCIES}"


def compare(run: Path, root: Path, command: str) -> None:
    """Predict the validation images and compare labels and logits."""
    with np.load(run / "predictions" / "valid.npz") as arrays:
        ids = arrays["ids"]
        logits = arrays["logits"]
        classes = arrays["classes"]
    images = sorted({str(root / name) for name in ids})
    arguments = ["predict", str(run / "export"), *images, "--format", "jsonl", "--logits"]
    result = subprocess.run([command, *arguments], check=True, stdout=subprocess.PIPE, text=True)
    rows = {}
    for line in result.stdout.splitlines():
        row = json.loads(line)
        rows[row["image"]] = row

    largest = 0.0
    for name, expected in zip(ids, logits, strict=True):
        row = rows[str(root / name)]
        label = classes[expected.argmax()]
        assert row["label"] == label, f"{name}: got {row['label']!r}, training had {label!r}"
        actual = np.array([row["logits"][class_name] for class_name in classes])
        largest = max(largest, float(np.abs(actual - expected).max()))
    assert largest <= TOLERANCE, f"logits differ by {largest:.2g}, allowed {TOLERANCE}"
    print(f"{len(images)} validation images: same labels, logits within {largest:.1e}")


if __name__ == "__main__":
    check_environment()
    compare(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
