"""Start runs from another run: its weights by class name, a frozen backbone, and a teacher."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from forked_app import finish

from cls_export import verify_bundle

pytestmark = pytest.mark.slow


@pytest.fixture
def data_root(finished_run: Path) -> str:
    config = yaml.safe_load((finished_run / "config.yaml").read_text())
    root: str = config["data"]["root"]
    return root


def train(folder: Path, name: str, *overrides: str) -> Path:
    """Run the app on a tiny rendered data set; return the run folder."""
    settings = [f"run.root={folder / 'runs'}", f"run.name={name}", *overrides]
    finish(["data=synthetic_tiny", "debug=tiny", *settings], folder / f"{name}.txt")
    return folder / "runs" / name


def load_weights(run: Path) -> dict[str, torch.Tensor]:
    checkpoint: dict[str, Any] = torch.load(run / "checkpoints/best.ckpt", weights_only=True)
    state = checkpoint["state_dict"]
    return {name.removeprefix("backbone."): value for name, value in state.items()}


def test_a_linear_probe_on_cached_features_leaves_the_backbone_unchanged(
    finished_run: Path, data_root: str, tmp_path: Path
) -> None:
    probe = train(
        tmp_path,
        "probe",
        f"data.root={data_root}",
        "transfer=linear_probe",
        "+transfer.cache_features=true",
        "augmentation=none",
        f"model.init_from={finished_run}",
    )
    before, after = load_weights(finished_run), load_weights(probe)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"fc.weight", "fc.bias"}
    assert verify_bundle(probe / "export").passed


def test_head_rows_are_copied_by_class_name_and_raw_weights_are_verified_without_ema(
    finished_run: Path, tmp_path: Path
) -> None:
    run = train(
        tmp_path,
        "more",
        f"model.init_from={finished_run}",
        f"data.root={tmp_path / 'data'}",
        'data.synthetic.classes=["0","23","44","7"]',
        "trainer.max_epochs=1",
        "optimizer.lr=0",
        "callbacks.ema=null",
    )
    before, after = load_weights(finished_run), load_weights(run)
    same_classes = [0, 1, 3]  # 0, 23, and 7
    assert torch.equal(after["fc.weight"][same_classes], before["fc.weight"][[0, 1, 2]])
    assert torch.equal(after["conv1.weight"], before["conv1.weight"])

    evaluation = json.loads((run / "evaluation.json").read_bytes())
    scored = evaluation["scored"]
    assert scored["weights"] == "raw"
    metric = evaluation["metrics"]["valid"][scored["metric"]]
    assert metric == pytest.approx(scored["value"], abs=1e-4)
    assert evaluation["onnx"]["max_logit_difference"] < 1e-4


def test_a_run_can_be_the_teacher_of_another(
    finished_run: Path, data_root: str, tmp_path: Path
) -> None:
    student = train(
        tmp_path,
        "student",
        f"data.root={data_root}",
        "distillation=checkpoint",
        f"distillation.run={finished_run}",
        "mixing=mixup",
    )
    assert load_weights(student).keys() == load_weights(finished_run).keys()
    assert verify_bundle(student / "export").passed
