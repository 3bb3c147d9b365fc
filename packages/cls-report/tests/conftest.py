"""Runs as the app leaves them, made of drawn answers: small, quick, and of a skill that is known."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from drawn import MakeRun, drawn_predictions
from PIL import Image

from cls_data import Predictions
from cls_export import LabelsMapping, Preprocessing, Provenance
from cls_report import Run


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Return a function that leaves a run's folder, and the images that it was evaluated on."""
    root = tmp_path / "data"
    preprocessing = Preprocessing(size=(32, 32), mean=(0.5,) * 3, std=(0.5,) * 3)

    def make(name: str, seed: int = 1, predictions: Predictions | None = None, **data: Any) -> Run:
        folder = tmp_path / "runs" / name
        found = drawn_predictions(seed=seed) if predictions is None else predictions
        found.save(folder / "predictions/valid.npz")
        for row, image in enumerate(found.ids):
            path = root / str(image)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20, 30), (row * 4 % 256, 90, 200)).save(path)
        config = {
            "seed": seed,
            "run": {"name": name},
            "data": {"root": str(root), "seed": seed, **data},
            "model": {"name": "resnet18"},
            "optimizer": {"lr": 0.1},
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        classes = {str(label): index for index, label in enumerate(found.classes)}
        provenance = Provenance(run=name, code_commit="0123abc-dirty", data_fingerprint="f" * 64)
        LabelsMapping.from_classes(classes, preprocessing, provenance).save(
            folder / "labels_mapping.json"
        )
        (folder / "evaluation.json").write_text("{}")
        return Run.at(folder)

    return make
