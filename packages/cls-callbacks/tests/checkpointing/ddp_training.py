"""Train with EMA in two processes, and save what each holds: ddp_training.py FOLDER."""

import sys
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional

from cls_callbacks import EMA


class Net(LightningModule):
    """One linear layer that records its weights in each validation step."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 2)
        self.validated: list[Tensor] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return functional.cross_entropy(self.layer(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.validated.append(self.layer.weight.detach().clone())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.5)


class RawWeights(Callback):
    """Record the raw weights before the first step and after each step."""

    def __init__(self) -> None:
        self.recorded: list[Tensor] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._record(pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self._record(pl_module)

    def _record(self, pl_module: Any) -> None:
        self.recorded.append(pl_module.layer.weight.detach().clone())


def main() -> None:
    folder = Path(sys.argv[1])
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(32, 4, generator=generator)
    rows = torch.utils.data.TensorDataset(inputs, torch.arange(32) % 2)
    loader: Any = torch.utils.data.DataLoader(rows, batch_size=4)
    weights, module = RawWeights(), Net()
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
        callbacks=[EMA(decay=0.9, every=1), weights],
    )
    trainer.fit(module, loader, loader)
    trainer.save_checkpoint(folder / "last.ckpt")  # Lightning writes it in the first process
    recorded = {"raw": weights.recorded, "validated": module.validated}
    torch.save(recorded, folder / f"rank{trainer.global_rank}.pt")


if __name__ == "__main__":
    main()
