import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from cls_callbacks import BestAndLastCheckpoint, SamplerDistributionWriter
from cls_data import ClassificationDataModule


class Labels(Callback):
    """Record the labels of each epoch."""

    def __init__(self) -> None:
        self.seen: list[list[int]] = []

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self.seen.append([])

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.seen[-1] += batch["labels"].tolist()


def table(path: Path) -> Any:
    return json.loads((path / "run/sampler_distribution.json").read_text())


@pytest.mark.parametrize(("sampler", "messages"), [("shuffle", 0), ("weighted", 1)])
def test_draws_per_class_are_written_after_each_epoch(
    module: Any,
    data: Any,
    make_trainer: Any,
    tmp_path: Path,
    log_messages: list[str],
    sampler: str,
    messages: int,
) -> None:
    config = data.config.model_copy(update={"sampler": sampler})
    data = ClassificationDataModule(config, data.preprocessing)
    make_trainer(SamplerDistributionWriter(), labels := Labels(), max_epochs=2).fit(
        module, datamodule=data
    )
    counts = torch.bincount(torch.tensor(labels.seen[-1]), minlength=3).tolist()
    expected = {
        name: {"rows": 16, "drawn": drawn}
        for name, drawn in zip(("0", "1", "7"), counts, strict=True)
    }
    assert table(tmp_path) == {"epoch": 1, "sampler": sampler, "classes": expected}
    assert sum(counts) == 48
    assert sum(line.startswith("weighted sampler: class") for line in log_messages) == messages


def test_resumed_run_writes_its_latest_epoch(
    new_module: Any, data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    last = tmp_path / "run/checkpoints/last.ckpt"
    for epochs, checkpoint in ((1, None), (3, last)):
        trainer = make_trainer(
            SamplerDistributionWriter(),
            BestAndLastCheckpoint("valid_top1", "max"),
            max_epochs=epochs,
        )
        trainer.fit(
            new_module(),
            datamodule=data,
            ckpt_path=checkpoint,
            weights_only=True if checkpoint else None,
        )
    assert table(tmp_path)["epoch"] == 2
    assert {entry["drawn"] for entry in table(tmp_path)["classes"].values()} == {16}
