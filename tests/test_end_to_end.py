"""A complete run.

The weights that reached the best monitored metric must be the weights in best.ckpt, in the test
result, and in the ONNX file.
"""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from forked_app import start
from torch.nn import functional

from cls_callbacks import AtomicCheckpointIO
from cls_data import Predictions
from cls_export import Classifier, LabelsMapping, verify_bundle
from cls_models import build_backbone

pytestmark = pytest.mark.slow


def load_checkpoint(run: Path, name: str = "best") -> dict[str, Any]:
    saved: dict[str, Any] = torch.load(run / f"checkpoints/{name}.ckpt", weights_only=True)
    return saved


def get_image_paths(run: Path, predictions: Predictions) -> list[Path]:
    root = Path(yaml.safe_load((run / "config.yaml").read_text())["data"]["root"])
    return [root / name for name in predictions.ids]


def compute_loss(logits: Any, labels: Any) -> float:
    return float(functional.cross_entropy(torch.as_tensor(logits), torch.as_tensor(labels)))


def test_a_finished_run_has_every_documented_file(finished_run: Path) -> None:
    for name in (
        "config.yaml",
        "labels_mapping.json",
        "metrics.csv",
        "statistics.json",
        "evaluation.json",
        "summary.json",
        "train.log",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "checkpoints/last.ckpt.sha256",
        "predictions/valid.npz",
        "predictions/test.npz",
        "plots/history.png",
        "plots/confusion_valid.png",
        "plots/confusion_test.png",
        "plots/class_distribution.png",
        "plots/augmented.png",
        "plots/predictions_valid.png",
        "plots/predictions_test.png",
        "export/model.onnx",
        "export/labels_mapping.json",
        "export/golden/golden.json",
        "export/README.md",
        "report.html",
        "origin.json",
    ):
        assert (finished_run / name).stat().st_size > 0, name
    drafts = list(finished_run.rglob(".*"))
    assert drafts == []


def test_confidence_intervals_contain_the_logged_metrics(finished_run: Path) -> None:
    evaluation = json.loads((finished_run / "evaluation.json").read_bytes())
    for split in ("valid", "test"):
        for name in ("top1", "top5", "macro_f1", "loss"):
            estimate = evaluation["scores"][split][name]
            logged = evaluation["metrics"][split][f"{split}_{name}"]
            assert estimate["value"] == pytest.approx(logged, abs=1e-6)
            assert estimate["low"] <= estimate["value"] <= estimate["high"]


def test_the_report_shows_the_run_and_its_command(finished_run: Path) -> None:
    page = (finished_run / "report.html").read_text()
    assert "<title>whole" in page
    assert "uv run apps/train debug=tiny data=synthetic_tiny" in page
    assert len(page) < 5_000_000


def test_best_checkpoint_holds_the_ema_weights_that_reached_the_metric(
    finished_run: Path,
) -> None:
    saved = load_checkpoint(finished_run)
    assert saved["scored"]["weights"] == "ema"
    assert any(
        not torch.equal(tensor, saved["raw_state_dict"][name])
        for name, tensor in saved["state_dict"].items()
    )

    predictions = Predictions.load(finished_run / "predictions/valid.npz")
    labels = LabelsMapping.load(finished_run / "labels_mapping.json")
    backbone = build_backbone("resnet18", num_classes=3).eval()
    backbone.load_state_dict(
        {name.removeprefix("backbone."): value for name, value in saved["state_dict"].items()}
    )
    inputs = np.concatenate(
        [labels.preprocessing(path) for path in get_image_paths(finished_run, predictions)]
    )
    with torch.inference_mode():
        logits = backbone(torch.from_numpy(inputs))
    assert compute_loss(logits, predictions.labels) == pytest.approx(
        saved["scored"]["value"], abs=1e-5
    )
    assert np.abs(logits.numpy() - predictions.logits).max() < 1e-4


def test_the_onnx_file_holds_the_weights_that_reached_the_metric(finished_run: Path) -> None:
    predictions = Predictions.load(finished_run / "predictions/valid.npz")
    logits = Classifier(finished_run / "export").logits(get_image_paths(finished_run, predictions))
    scored = load_checkpoint(finished_run)["scored"]
    assert np.abs(logits - predictions.logits).max() < 1e-4
    assert compute_loss(logits, predictions.labels) == pytest.approx(scored["value"], abs=1e-5)
    metric = LabelsMapping.load(finished_run / "export/labels_mapping.json").provenance.metric
    assert metric is not None
    assert metric.model_dump() == {
        "name": "valid_loss",
        "value": scored["value"],
        "epoch": scored["epoch"],
        "step": scored["step"],
    }


def test_the_best_score_is_the_best_logged_score(finished_run: Path) -> None:
    with (finished_run / "metrics.csv").open(newline="") as stream:
        logged = [float(row["valid_loss"]) for row in csv.DictReader(stream) if row["valid_loss"]]
    assert len(logged) == 3
    assert load_checkpoint(finished_run)["scored"]["value"] == min(logged)
    evaluation = json.loads((finished_run / "evaluation.json").read_text())
    assert evaluation["metrics"]["valid"]["valid_loss"] == pytest.approx(min(logged), abs=1e-6)
    assert evaluation["onnx"]["valid_loss"] == pytest.approx(min(logged), abs=1e-5)


def test_the_bundle_passes_its_golden_test(finished_run: Path) -> None:
    report = verify_bundle(finished_run / "export")
    assert report.passed
    assert report.images == 8


def test_the_bundle_records_its_provenance(finished_run: Path) -> None:
    before = LabelsMapping.load(finished_run / "labels_mapping.json")
    after = LabelsMapping.load(finished_run / "export/labels_mapping.json")
    assert (before.provenance.metric, before.provenance.weights) == (None, None)
    assert (after.provenance.run, after.provenance.weights) == ("whole", "ema")
    assert after.provenance.data_fingerprint == before.provenance.data_fingerprint
    assert len(after.provenance.data_fingerprint or "") == 64
    assert after.classes == ("0", "23", "7")


def test_evaluation_fails_for_other_weights_in_best_checkpoint(
    finished_run: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(finished_run, tmp_path / "tampered"))
    (run / "evaluation.json").unlink()
    saved = load_checkpoint(run)
    AtomicCheckpointIO().save_checkpoint(
        {**saved, "state_dict": saved["raw_state_dict"]}, run / "checkpoints/best.ckpt"
    )
    result = subprocess.run(
        [sys.executable, "-m", "cls_train.stages.evaluate", str(run)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert "valid_loss was logged as" in result.stderr
    assert "best.ckpt in a clean process reaches" in result.stderr
    assert not (run / "evaluation.json").exists()


def test_a_finished_run_is_not_started_again(
    finished_run: Path, train_command: Any, tmp_path: Path
) -> None:
    output = tmp_path / "output.txt"
    process = start(train_command(finished_run.parent, "whole")[2:], output)
    process.join(60)
    assert process.exitcode == 2
    assert "apps/train: run 'whole' is finished" in output.read_text()


@pytest.mark.faults
@pytest.mark.skipif(
    shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU"
)
def test_compiled_weights_reach_the_logged_metric(
    tmp_path: Path, train_command: Any, short: bool
) -> None:
    if short:
        pytest.skip("compiling takes a minute; run pytest -m faults")
    settings = (
        "data.batch_size=2",
        "callbacks=compiled",
        "callbacks.compilation.when=always",
        "trainer.max_epochs=4",
    )
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    subprocess.run(
        train_command(tmp_path, "compiled", *settings), check=True, env=environment, cwd=tmp_path
    )
    assert "compilation took" in (tmp_path / "compiled/train.log").read_text()
    evaluation = json.loads((tmp_path / "compiled/evaluation.json").read_bytes())
    scored = evaluation["scored"]
    assert scored["weights"] == "ema"
    assert evaluation["metrics"]["valid"][scored["metric"]] == pytest.approx(
        scored["value"], abs=1e-4
    )
    assert evaluation["onnx"]["max_logit_difference"] < 1e-4


def test_tensorboard_has_the_curves_the_plots_and_the_best_metrics(
    finished_run: Path,
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished_run / "tensorboard"))
    events.Reload()
    plots = {path.stem for path in (finished_run / "plots").glob("*.png")}
    assert {
        "augmented",
        "class_distribution",
        "history",
        "confusion_test",
        "predictions_valid",
    } <= plots
    assert set(events.Tags()["images"]) == plots
    assert {"train_loss", "valid_top1", "lr"} <= set(events.Tags()["scalars"])
    evaluation = json.loads((finished_run / "evaluation.json").read_bytes())
    (best,) = events.Scalars("best_test_top1")
    assert best.value == pytest.approx(evaluation["metrics"]["test"]["test_top1"])
    assert best.step == evaluation["scored"]["step"]
