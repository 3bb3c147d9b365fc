from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from cls_callbacks import BestAndLastCheckpoint, TrainingWarnings


class SetMetrics(Callback):
    """Set the metrics of an epoch, in place of the module."""

    def __init__(self, **values: float) -> None:
        self.values = {name: torch.tensor(value) for name, value in values.items()}

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        trainer.callback_metrics.update(self.values)


def freeze(module: Any) -> Any:
    """Make a module whose weights do not change."""
    module.configure_optimizers = lambda: torch.optim.SGD(module.parameters(), lr=0.0)
    return module


def test_constant_loss_is_logged_once(
    module: Any, data: Any, make_trainer: Any, log_warnings: list[str]
) -> None:
    warnings = TrainingWarnings(min_loss_change=0.05)
    make_trainer(warnings, max_epochs=5).fit(freeze(module), datamodule=data)
    assert len([line for line in log_warnings if "The training loss has stayed at" in line]) == 1
    assert "for 3 epochs" in warnings.messages[0]


def test_decreasing_loss_logs_no_warning(
    module: Any, data: Any, make_trainer: Any, log_warnings: list[str]
) -> None:
    make_trainer(TrainingWarnings(), max_epochs=5).fit(module, datamodule=data)
    assert not [line for line in log_warnings if "The training loss" in line]


@pytest.mark.parametrize(("train", "times"), [(0.5, 1), (0.8, 0)])
def test_large_accuracy_gap_is_logged_when_training_ends(
    module: Any, data: Any, make_trainer: Any, log_warnings: list[str], train: float, times: int
) -> None:
    metrics = SetMetrics(train_top1=train, valid_top1=0.9)
    warnings = TrainingWarnings()
    make_trainer(metrics, warnings, max_epochs=2).fit(module, datamodule=data)
    text = f"Top-1 accuracy is 90.0% on valid but {train:.1%} on augmented training images"
    assert len([line for line in log_warnings if text in line]) == times
    assert len([line for line in warnings.messages if text in line]) == times


def test_classes_never_predicted_are_listed(
    module: Any, data: Any, make_trainer: Any, log_warnings: list[str]
) -> None:
    with torch.no_grad():
        module.net[-1].bias[:] = torch.tensor([0.0, 100.0, 0.0])
    make_trainer(TrainingWarnings(), max_epochs=1).fit(freeze(module), datamodule=data)
    assert any(
        "2 of 3 classes in valid are never predicted: '0', '7'" in line for line in log_warnings
    )


def test_resumed_training_remembers_its_warnings(
    module: Any,
    new_module: Any,
    data: Any,
    make_trainer: Any,
    tmp_path: Path,
    log_warnings: list[str],
) -> None:
    make_trainer(TrainingWarnings(min_loss_change=0.05), BestAndLastCheckpoint(), max_epochs=3).fit(
        freeze(module), datamodule=data
    )
    again = TrainingWarnings(min_loss_change=0.05)
    trainer = make_trainer(again, BestAndLastCheckpoint(), max_epochs=5)
    last = tmp_path / "run/checkpoints/last.ckpt"
    trainer.fit(freeze(new_module()), datamodule=data, ckpt_path=last, weights_only=True)
    assert len([line for line in again.messages if "The training loss" in line]) == 1


def test_finished_training_that_is_fit_again_remembers_its_warnings(
    module: Any, new_module: Any, data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    first, again = TrainingWarnings(min_loss_change=0.05), TrainingWarnings(min_loss_change=0.05)
    with torch.no_grad():
        module.net[-1].bias[:] = torch.tensor([0.0, 100.0, 0.0])
    make_trainer(first, BestAndLastCheckpoint(), max_epochs=3).fit(freeze(module), datamodule=data)
    last = tmp_path / "run/checkpoints/last.ckpt"
    trainer = make_trainer(again, BestAndLastCheckpoint(), max_epochs=3)
    trainer.fit(freeze(new_module()), datamodule=data, ckpt_path=last, weights_only=True)
    assert len(first.messages) == 2
    assert again.messages == first.messages
