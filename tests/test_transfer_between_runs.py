"""What one run learnt, in another: weights by class name, a frozen backbone, a teacher."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from cls_export import verify_bundle

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]


def train(folder: Path, name: str, *overrides: str) -> Path:
    """Run the app on a tiny rendered set; return the run's folder."""
    settings = [
        f"data.root={folder / 'data'}",
        f"run.root={folder / 'runs'}",
        f"run.name={name}",
        *overrides,
    ]
    command = [sys.executable, "apps/train", "data=synthetic_tiny", "debug=tiny", *settings]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "runs" / name


def weights(run: Path) -> dict[str, torch.Tensor]:
    saved: dict[str, Any] = torch.load(run / "checkpoints/best.ckpt", weights_only=True)
    return {name.removeprefix("backbone."): value for name, value in saved["state_dict"].items()}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("transfer"), "first")


def test_a_linear_probe_on_cached_features_leaves_the_backbone_as_it_was(first: Path) -> None:
    probe = train(
        first.parents[1],
        "probe",
        "transfer=linear_probe",
        "+transfer.cache_features=true",
        "augmentation=none",
        f"+model.init_from={first}",
    )
    before, after = weights(first), weights(probe)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"fc.weight", "fc.bias"}
    assert verify_bundle(probe / "export").passed


def test_the_rows_of_classes_that_stay_are_taken_over(first: Path) -> None:
    more = train(
        first.parents[1],
        "more",
        f"+model.init_from={first}",
        f"data.root={first.parents[1] / 'more-data'}",
        'data.synthetic.classes=["0","23","44","7"]',
        "trainer.max_epochs=1",
        "optimizer.lr=0",
        "callbacks.ema=null",
    )
    before, after = weights(first), weights(more)
    assert torch.equal(after["fc.weight"][[0, 1, 3]], before["fc.weight"][[0, 1, 2]]), (
        "0, 23 and 7, by name"
    )
    assert torch.equal(after["conv1.weight"], before["conv1.weight"])


def test_a_run_teaches_another(first: Path) -> None:
    taught = train(
        first.parents[1],
        "taught",
        "distillation=checkpoint",
        f"distillation.run={first}",
        "mixing=mixup",
    )
    assert weights(taught).keys() == weights(first).keys()
    assert verify_bundle(taught / "export").passed
