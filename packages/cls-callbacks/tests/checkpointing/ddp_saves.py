"""Train in two processes on a disk that fails in the second epoch: ddp_saves.py FOLDER ON_ERROR.

Each process writes `rankN.json` with the error, the epoch, and the best score that it ended with.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional

from cls_callbacks import AtomicCheckpointIO, BestAndLastCheckpoint, CheckpointNotSavedError


class FailingDisk(AtomicCheckpointIO):
    """Cannot write anything in the second epoch."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, *more: Any) -> None:
        if checkpoint["epoch"] == 1:
            raise CheckpointNotSavedError("the disk is full")
        super().save_checkpoint(checkpoint, path, *more)


class Net(LightningModule):
    """One linear layer, best in the second of three epochs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return functional.cross_entropy(self.layer(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("score", (0.1, 0.5, 0.3)[self.current_epoch], sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.5)


def main() -> None:
    folder = Path(sys.argv[1])
    on_save_error: Any = sys.argv[2]
    rows = torch.utils.data.TensorDataset(torch.randn(32, 4), torch.arange(32) % 2)
    loader: Any = torch.utils.data.DataLoader(rows, batch_size=4)
    saves = BestAndLastCheckpoint("score", on_save_error=on_save_error, asynchronous=True)
    reported: list[int] = []
    saves.on_saved = reported.append
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        max_epochs=3,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
        callbacks=[saves],
        plugins=[FailingDisk()],
    )
    error = None
    try:
        trainer.fit(Net(), loader, loader)
    except CheckpointNotSavedError as failure:
        error = str(failure)
    result = {
        "error": error,
        "epoch": trainer.current_epoch,
        "best": round(saves.best_score or 0.0, 3),
        "reported": reported,
    }
    (folder / f"rank{trainer.global_rank}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
