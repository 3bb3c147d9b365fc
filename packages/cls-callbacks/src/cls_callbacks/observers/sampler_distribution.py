"""Which classes training really sees, and how often."""

import json
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from loguru import logger
from torch import Tensor

from cls_callbacks.datamodule_access import get_datamodule
from cls_export.contract.files import write_atomically


class SamplerDistribution(Callback):
    """Writes sampler_distribution.json after each epoch: of every class, its rows in train and how often it was drawn.

    `epoch` counts from 0, as in metrics.csv. The labels are those of the batches; where images are mixed, of the first
    of both. Of an epoch in whose middle a run goes on, what was drawn from there on is counted. Under
    `data.sampler=weighted` one line, after the first epoch, names the classes drawn least and most often.
    """

    def __init__(self) -> None:
        self._drawn = torch.zeros(0, dtype=torch.int64)
        self._said = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count from here where a run goes on in the middle of an epoch."""
        self._said = False
        self._begin(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count from here."""
        self._begin(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count on the device; unlike `torch.bincount`, this makes no step wait for it."""
        labels = batch["labels"]
        self._drawn.index_add_(0, labels, torch.ones_like(labels))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write."""
        drawn: Tensor = trainer.strategy.reduce(self._drawn, reduce_op="sum")
        if not trainer.is_global_zero:
            return
        data = get_datamodule(trainer)
        by_class = dict(zip(data.classes, drawn.tolist(), strict=True))
        rows = dict(zip(data.classes, data.class_counts().tolist(), strict=True))
        table = {name: {"rows": rows[name], "drawn": by_class[name]} for name in data.classes}
        content = {"epoch": trainer.current_epoch, "sampler": data.config.sampler, "classes": table}
        path = Path(trainer.default_root_dir) / "sampler_distribution.json"
        write_atomically(path, (json.dumps(content, ensure_ascii=False, indent=1) + "\n").encode())
        if data.config.sampler == "weighted" and not self._said:
            self._said = True
            _say(rows, by_class)

    def _begin(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._drawn = torch.zeros(
            len(get_datamodule(trainer).classes), dtype=torch.int64, device=pl_module.device
        )


def _say(rows: dict[str, int], drawn: dict[str, int]) -> None:
    least, most = min(drawn, key=drawn.__getitem__), max(drawn, key=drawn.__getitem__)
    logger.info(
        "the weighted sampler drew {!r} least, {} times from {} rows, and {!r} most, {} times from {} rows",
        least,
        drawn[least],
        rows[least],
        most,
        drawn[most],
        rows[most],
    )
