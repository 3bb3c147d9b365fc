import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from cls_callbacks import (
    EMA,
    AtomicCheckpointIO,
    BestAndLastCheckpoint,
    ImageThroughputMonitor,
    PreemptionCheckpoint,
    TrainingHistoryWriter,
    TrainingWarnings,
    verify_checkpoint,
)
from cls_callbacks.checkpointing.migration import migrate_checkpoint
from cls_data import ClassificationDataModule, DataModuleConfig

GOLDEN = Path(__file__).parents[1] / "golden/interrupted_v0_1.ckpt"
"""Written by version 0.1, which was interrupted after step 5 of 9; see README.md there."""


@pytest.fixture
def golden_data(tmp_path: Path, data: Any) -> ClassificationDataModule:
    """The data that the golden checkpoint was trained on."""
    root = tmp_path / "data"
    for split, count in (("train", 24), ("valid", 6)):
        (root / split).mkdir(parents=True)
        rows = []
        for number in range(count):
            levels = np.arange(16 * 16 * 3).reshape(16, 16, 3) * (number % 3 + 1) + 7 * number
            # BMP is not compressed, so its bytes do not depend on the version of Pillow.
            Image.fromarray((levels % 256).astype(np.uint8)).save(root / split / f"{number}.bmp")
            rows.append(json.dumps({"image": f"{number}.bmp", "suffix": str(number % 3)}))
        (root / split / "annotations.jsonl").write_text("\n".join(rows) + "\n")
    config = DataModuleConfig(root=root, batch_size=8, gate=None)
    return ClassificationDataModule(config, data.preprocessing)


def test_run_interrupted_in_version_0_1_resumes_exactly(
    new_module: Any, golden_data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    verify_checkpoint(GOLDEN)

    def train(folder: str, checkpoint: Path | None) -> tuple[dict[str, Any], list[Any]]:
        module = new_module()
        torch.manual_seed(0)
        module.net = nn.Sequential(
            nn.Conv2d(3, 2, 3, stride=4, bias=False),
            nn.BatchNorm2d(2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32, 3),
        )
        history, warnings, throughput = (
            TrainingHistoryWriter(),
            TrainingWarnings(),
            ImageThroughputMonitor(),
        )
        trainer = make_trainer(
            EMA(decay=0.9),
            warnings,
            throughput,
            history,
            BestAndLastCheckpoint("valid_loss", "min"),
            PreemptionCheckpoint(),
            default_root_dir=tmp_path / folder,
            plugins=[AtomicCheckpointIO()],
        )
        trainer.fit(module, datamodule=golden_data, ckpt_path=checkpoint, weights_only=True)
        last = tmp_path / folder / "checkpoints/last.ckpt"
        saved: dict[str, Any] = torch.load(last, weights_only=True)
        return saved, history.epochs

    resumed, resumed_epochs = train("resumed", GOLDEN)
    whole, whole_epochs = train("whole", None)

    assert resumed["global_step"] == whole["global_step"] == 9
    # Close instead of equal: the golden file may come from a CPU that rounds differently.
    for key in ("state_dict", "raw_state_dict"):
        torch.testing.assert_close(resumed[key], whole[key], rtol=1e-4, atol=1e-5)
    assert resumed["scored"]["value"] == pytest.approx(whole["scored"]["value"], abs=1e-4)
    for one, other in zip(resumed_epochs, whole_epochs, strict=True):
        assert one["step"] == other["step"]
        for name in ("valid_loss", "valid_top1", "ema_decay"):
            assert one[name] == pytest.approx(other[name], abs=1e-4)
    states = resumed["callbacks"]
    assert states.keys() == whole["callbacks"].keys()
    assert states["EMA"] == whole["callbacks"]["EMA"]
    assert len(states["TrainingWarnings"]["losses"]) == 3
    # The interrupted epoch counts from where it resumed: 24 + 8 + 24 images.
    assert states["ImageThroughputMonitor"]["images"] == 56
    best = states["BestAndLastCheckpoint"]["best_score"]
    assert best == pytest.approx(min(epoch["valid_loss"] for epoch in whole_epochs), abs=1e-4)


def test_migration_leaves_current_checkpoints_unchanged() -> None:
    checkpoint = {
        "callbacks": {"EMA": {"steps": 3, "waiting": 1}, "MyCallback": {"BestAndLast": 1}}
    }
    expected = {"callbacks": {"EMA": {"steps": 3, "waiting": 1}, "MyCallback": {"BestAndLast": 1}}}
    migrate_checkpoint(checkpoint)
    assert checkpoint == expected


def test_migration_accepts_a_checkpoint_without_callbacks() -> None:
    checkpoint = {"state_dict": {}}
    migrate_checkpoint(checkpoint)
    assert checkpoint == {"state_dict": {}}


def test_migration_renames_the_step_count_of_early_averages() -> None:
    checkpoint: dict[str, Any] = {"callbacks": {"EMA": {"updates": 7}}}
    migrate_checkpoint(checkpoint)
    assert checkpoint == {"callbacks": {"EMA": {"steps": 7}}}
