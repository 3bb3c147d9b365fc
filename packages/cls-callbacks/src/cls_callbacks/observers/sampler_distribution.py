"""Count how often the sampler draws each class."""

import json
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from loguru import logger
from torch import Tensor

from cls_callbacks.trainer_access import get_datamodule, get_run_paths
from cls_export.contract.files import write_atomically


class SamplerDistributionWriter(Callback):
    """After each epoch, write each class's rows and draws to sampler_distribution.json.

    `epoch` counts from 0, as in metrics.csv. Labels are counted per batch; of two mixed images, the
    first one's label counts. In a run that resumes in the middle of an epoch, counting starts
    there. With `data.sampler=weighted`, the classes drawn least and most often are logged after the
    first epoch.
    """

    def __init__(self) -> None:
        self._draws = torch.zeros(0, dtype=torch.int64)
        self._has_logged = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reset the counts, for a run that resumes in the middle of an epoch."""
        self._has_logged = False
        self._reset(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reset the counts."""
        self._reset(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count on the device; unlike `torch.bincount`, this does not synchronize with it."""
        labels = batch["labels"]
        self._draws.index_add_(0, labels, torch.ones_like(labels))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file."""
        draws: Tensor = trainer.strategy.reduce(self._draws, reduce_op="sum")
        if not trainer.is_global_zero:
            return

        data = get_datamodule(trainer)
        row_counts = data.class_counts().tolist()
        draw_counts = draws.tolist()
        table: dict[str, dict[str, int]] = {}
        for index, name in enumerate(data.classes):
            table[name] = {"rows": row_counts[index], "drawn": draw_counts[index]}

        sampler = data.config.sampler
        content = {"epoch": trainer.current_epoch, "sampler": sampler, "classes": table}
        text = json.dumps(content, ensure_ascii=False, indent=1) + "\n"
        write_atomically(get_run_paths(trainer).sampler_distribution, text.encode())

        if sampler == "weighted" and not self._has_logged:
            self._has_logged = True
            _log_extremes(table)

    def _reset(self, trainer: Trainer, pl_module: LightningModule) -> None:
        num_classes = len(get_datamodule(trainer).classes)
        self._draws = torch.zeros(num_classes, dtype=torch.int64, device=pl_module.device)


def _log_extremes(table: dict[str, dict[str, int]]) -> None:
    least = min(table, key=lambda name: table[name]["drawn"])
    most = max(table, key=lambda name: table[name]["drawn"])
    logger.info(
        "weighted sampler: class {!r} was drawn least ({} times from {} rows), "
        "class {!r} most ({} times from {} rows)",
        least,
        table[least]["drawn"],
        table[least]["rows"],
        most,
        table[most]["drawn"],
        table[most]["rows"],
    )
