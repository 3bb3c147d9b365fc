"""Fixtures for a small real training: rendered numbers, a small network, and a trainer."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from loguru import logger
from torch import Tensor, nn
from torch.nn import functional

from cls_data import (
    ClassificationBatch,
    ClassificationDataModule,
    DataModuleConfig,
    EvaluationOutputs,
    SyntheticNumbers,
)
from cls_export.contract.preprocessing import Preprocessing


class SmallModule(LightningModule):
    """A module with `HasEvaluationOutputs`, and with batch norm, so that it has buffers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Conv2d(3, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(784, 3),
        )
        self.outputs: EvaluationOutputs | None = None
        self.gathered: list[tuple[Tensor, Tensor, Tensor]] = []

    def training_step(self, batch: ClassificationBatch, batch_idx: int) -> Tensor:
        loss = functional.cross_entropy(self.net(batch["images"]), batch["labels"])
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(batch["labels"]))
        return loss

    def validation_step(self, batch: ClassificationBatch, batch_idx: int) -> None:
        self.gathered.append((self.net(batch["images"]), batch["labels"], batch["index"]))

    def test_step(self, batch: ClassificationBatch, batch_idx: int) -> None:
        self.validation_step(batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        self.finish_evaluation("valid")

    def on_test_epoch_end(self) -> None:
        self.finish_evaluation("test")

    def finish_evaluation(self, split: str) -> None:
        logits, labels, index = map(torch.cat, zip(*self.gathered, strict=True))
        self.gathered = []
        self.outputs = EvaluationOutputs(split, logits, labels, index)
        self.log(f"{split}_top1", (logits.argmax(dim=1) == labels).float().mean())
        self.log(f"{split}_loss", functional.cross_entropy(logits, labels))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=0.003)


MakeTrainer = Callable[..., Trainer]


@pytest.fixture
def module() -> SmallModule:
    return SmallModule()


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "set"
    SyntheticNumbers(classes=("0", "1", "7"), train=16, valid=6, test=4).write(root)
    return root


@pytest.fixture
def data(data_root: Path) -> ClassificationDataModule:
    return ClassificationDataModule(
        DataModuleConfig(root=data_root, batch_size=16),
        Preprocessing(size=(16, 16), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    )


@pytest.fixture
def make_trainer(tmp_path: Path) -> MakeTrainer:
    def make(*callbacks: Any, **settings: Any) -> Trainer:
        arguments: dict[str, Any] = {
            "accelerator": "cpu",
            "max_epochs": 3,
            "logger": False,
            "enable_checkpointing": any(isinstance(each, Checkpoint) for each in callbacks),
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "default_root_dir": tmp_path / "run",
            "callbacks": list(callbacks),
            **settings,
        }
        return Trainer(**arguments)

    return make


@pytest.fixture
def new_module() -> Callable[[], SmallModule]:
    return SmallModule


@pytest.fixture
def log_messages() -> Iterator[list[str]]:
    """Messages that are logged during the test."""
    messages: list[str] = []
    sink = logger.add(messages.append, format="{message}")
    yield messages
    logger.remove(sink)


@pytest.fixture
def log_warnings() -> Iterator[list[str]]:
    """Warnings and errors that are logged during the test."""
    messages: list[str] = []
    sink = logger.add(messages.append, format="{message}", level="WARNING")
    yield messages
    logger.remove(sink)
