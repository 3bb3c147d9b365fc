"""Hooks that do nothing are skipped, and all others are called."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import LambdaCallback
from torch import Tensor

from cls_train.builders.step_overhead import NoProfiler, skip_empty_hooks


class Linear(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.layer(batch).sum()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class OwnHook(Callback):
    def __init__(self) -> None:
        self.calls: list[str] = []

    def on_train_batch_start(self, *_: Any) -> None:
        self.calls.append("start")

    def on_train_epoch_end(self, *_: Any) -> None:
        self.calls.append("epoch end")


class InheritedHook(OwnHook):
    def on_before_optimizer_step(self, *_: Any) -> None:
        self.calls.append("update")


def test_hooks_of_a_class_its_parents_and_an_instance_are_called(tmp_path: Path) -> None:
    calls: list[str] = []
    own, inherited = OwnHook(), InheritedHook()
    instance = LambdaCallback(on_train_batch_end=lambda *_: calls.append("end"))
    callbacks = [own, inherited, instance, Callback()]
    skip_empty_hooks(callbacks)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        callbacks=callbacks,
        profiler=NoProfiler(),
    )
    batches: Any = [torch.ones(3, 2)] * 2
    trainer.fit(Linear(), torch.utils.data.DataLoader(batches, batch_size=None))
    assert own.calls == ["start", "start", "epoch end"]
    assert inherited.calls == ["start", "update", "start", "update", "epoch end"]
    assert calls == ["end", "end"]
    assert callbacks[3].on_train_batch_start is None
