"""Runs in the clean environment: are the wheel's answers those that training wrote down?

Usage: python compare_answers.py RUN_FOLDER DATA_ROOT CLS_EXPORT_COMMAND
"""

import importlib.metadata
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

TOLERANCE = 1e-4
DECLARED = {"numpy", "onnxruntime", "pillow", "pydantic"}


def main(run: Path, root: Path, command: str) -> None:
    """Compare, and fail on the first difference."""
    for name in ("torch", "torchvision", "lightning", "onnx"):
        assert importlib.util.find_spec(name) is None, f"{name} is in the clean environment"
    needed = {
        line.split(">")[0].strip()
        for line in importlib.metadata.requires("cls-export") or []
        if "extra" not in line
    }
    assert needed == DECLARED, f"the wheel declares {sorted(needed)}, not {sorted(DECLARED)}"

    with np.load(run / "predictions" / "valid.npz") as arrays:
        ids, logits, classes = arrays["ids"], arrays["logits"], arrays["classes"]
    images = sorted({str(root / name) for name in ids})
    output = subprocess.run(
        [command, "predict", str(run / "export"), *images, "--format", "jsonl", "--logits"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    answers = {row["image"]: row for row in map(json.loads, output.splitlines())}
    worst = 0.0
    for name, expected in zip(ids, logits, strict=True):
        answer = answers[str(root / name)]
        label = classes[expected.argmax()]
        assert answer["label"] == label, (
            f"{name}: the wheel says {answer['label']!r}, training said {label!r}"
        )
        given = np.array([answer["logits"][class_name] for class_name in classes])
        worst = max(worst, float(np.abs(given - expected).max()))
    assert worst <= TOLERANCE, f"logits differ by {worst:.2g}"
    print(f"{len(images)} validation images: every label as in training, logits within {worst:.1e}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
