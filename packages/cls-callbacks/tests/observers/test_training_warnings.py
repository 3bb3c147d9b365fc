from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from loguru import logger

from cls_callbacks import BestAndLastCheckpoint, TrainingWarnings


@pytest.fixture
def said() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lines.append, format="{message}", level="WARNING")
    yield lines
    logger.remove(sink)


class Reports(Callback):
    """Says what an epoch's figures were, in the module's place."""

    def __init__(self, **values: float) -> None:
        self.values = {name: torch.tensor(value) for name, value in values.items()}

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        trainer.callback_metrics.update(self.values)


def still(module: Any) -> Any:
    """A module whose weights do not move."""
    module.configure_optimizers = lambda: torch.optim.SGD(module.parameters(), lr=0.0)
    return module


def test_a_loss_that_does_not_move_is_told_once(
    module: Any, data: Any, make_trainer: Any, said: list[str]
) -> None:
    warnings = TrainingWarnings(still=0.05)
    make_trainer(warnings, max_epochs=5).fit(still(module), datamodule=data)
    assert len([line for line in said if "the training loss has stayed at" in line]) == 1
    assert "for 3 epochs" in warnings.said[0]


def test_a_training_that_learns_says_nothing_of_its_loss(
    module: Any, data: Any, make_trainer: Any, said: list[str]
) -> None:
    make_trainer(TrainingWarnings(), max_epochs=5).fit(module, datamodule=data)
    assert not [line for line in said if "the training loss" in line]


@pytest.mark.parametrize(("train", "told"), [(0.5, 1), (0.8, 0)])
def test_a_validation_far_better_than_training_is_told_when_training_ends(
    module: Any, data: Any, make_trainer: Any, said: list[str], train: float, told: int
) -> None:
    reports = Reports(train_top1=train, valid_top1=0.9)
    warnings = TrainingWarnings()
    make_trainer(reports, warnings, max_epochs=2).fit(module, datamodule=data)
    about = f"top-1 is 90.0% on valid and {train:.1%} on augmented training images"
    assert len([line for line in said if about in line]) == told
    assert len([line for line in warnings.said if about in line]) == told


def test_classes_that_are_never_predicted_are_named(
    module: Any, data: Any, make_trainer: Any, said: list[str]
) -> None:
    with torch.no_grad():
        module.net[-1].bias[:] = torch.tensor([0.0, 100.0, 0.0])
    make_trainer(TrainingWarnings(), max_epochs=1).fit(still(module), datamodule=data)
    assert any("2 of 3 classes in valid are never predicted: '0', '7'" in line for line in said)


def test_a_resumed_training_remembers_what_was_said(
    module: Any, new_module: Any, data: Any, make_trainer: Any, tmp_path: Path, said: list[str]
) -> None:
    make_trainer(TrainingWarnings(still=0.05), BestAndLastCheckpoint(), max_epochs=3).fit(
        still(module), datamodule=data
    )
    again = TrainingWarnings(still=0.05)
    trainer = make_trainer(again, BestAndLastCheckpoint(), max_epochs=5)
    last = tmp_path / "run/checkpoints/last.ckpt"
    trainer.fit(still(new_module()), datamodule=data, ckpt_path=last, weights_only=True)
    assert len([line for line in again.said if "the training loss" in line]) == 1


def test_a_finished_training_that_is_fit_again_still_knows_what_was_said(
    module: Any, new_module: Any, data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    first, again = TrainingWarnings(still=0.05), TrainingWarnings(still=0.05)
    with torch.no_grad():
        module.net[-1].bias[:] = torch.tensor([0.0, 100.0, 0.0])
    make_trainer(first, BestAndLastCheckpoint(), max_epochs=3).fit(still(module), datamodule=data)
    last = tmp_path / "run/checkpoints/last.ckpt"
    trainer = make_trainer(again, BestAndLastCheckpoint(), max_epochs=3)
    trainer.fit(still(new_module()), datamodule=data, ckpt_path=last, weights_only=True)
    assert len(first.said) == 2
    assert again.said == first.said
