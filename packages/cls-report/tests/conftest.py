"""Run folders like those of the training app, with random predictions."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from report_data import MakeRun, make_predictions

from cls_data import Predictions
from cls_export import LabelsMapping, Preprocessing, Provenance
from cls_export.contract.run_layout import RunPaths
from cls_report import Run


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Return a function that writes a run folder and the images that it was evaluated on."""
    root = tmp_path / "data"
    preprocessing = Preprocessing(size=(32, 32), mean=(0.5,) * 3, std=(0.5,) * 3)

    def make(name: str, seed: int = 1, predictions: Predictions | None = None, **data: Any) -> Run:
        paths = RunPaths(tmp_path / "runs" / name)
        if predictions is None:
            predictions = make_predictions(seed=seed)
        predictions.save(paths.predictions / "valid.npz")
        for row, image in enumerate(predictions.ids):
            path = root / str(image)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20, 30), (row * 4 % 256, 90, 200)).save(path, "PNG")
        config = {
            "seed": seed,
            "run": {"name": name},
            "data": {"root": str(root), "seed": seed, **data},
            "model": {"name": "resnet18"},
            "optimizer": {"lr": 0.1},
        }
        paths.config.write_text(yaml.safe_dump(config))
        classes = {str(label): index for index, label in enumerate(predictions.classes)}
        provenance = Provenance(run=name, code_commit="0123abc-dirty", data_fingerprint="f" * 64)
        labels = LabelsMapping.from_classes(classes, preprocessing, provenance)
        labels.save(paths.labels)
        paths.evaluation.write_text("{}")
        return Run.open(paths.path)

    return make
