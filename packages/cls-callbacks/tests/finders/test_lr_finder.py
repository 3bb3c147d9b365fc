from pathlib import Path
from typing import Any

import pytest
import torch

from cls_callbacks import (
    AtomicCheckpointIO,
    BestAndLastCheckpoint,
    LRFinder,
    TrainingHistoryWriter,
)
from cls_data import ClassificationDataModule


def test_learning_rate_is_suggested_without_changing_the_training(
    new_module: Any, data: Any, make_trainer: Any, tmp_path: Path, log_messages: list[str]
) -> None:
    weights, histories = [], []
    for more in ([], [finder := LRFinder(max_lr=10.0, steps=60)]):
        module, history = new_module(), TrainingHistoryWriter()
        fresh = ClassificationDataModule(data.config, data.preprocessing)
        callbacks = [*more, BestAndLastCheckpoint("valid_top1", "max"), history]
        make_trainer(*callbacks, max_epochs=20, plugins=[AtomicCheckpointIO()]).fit(
            module, datamodule=fresh
        )
        weights.append(module.state_dict())
        histories.append(history.epochs)
    assert all(torch.equal(weights[0][name], tensor) for name, tensor in weights[1].items())
    assert histories[0] == histories[1]
    assert finder.suggestion is not None
    assert 1e-5 < finder.suggestion < 1
    line = "learning rate finder: the loss fell fastest at"
    assert sum(message.startswith(line) for message in log_messages) == 1
    assert (tmp_path / "run/plots/learning_rate.png").stat().st_size > 0
    assert list((tmp_path / "run").glob(".*")) == []


def test_resumed_run_skips_the_range_test(
    new_module: Any, data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    last = tmp_path / "run/checkpoints/last.ckpt"
    for epochs, checkpoint in ((1, None), (3, last)):
        more = [LRFinder()] if checkpoint else []
        history = TrainingHistoryWriter()
        trainer = make_trainer(
            *more, BestAndLastCheckpoint("valid_top1", "max"), history, max_epochs=epochs
        )
        trainer.fit(
            new_module(),
            datamodule=data,
            ckpt_path=checkpoint,
            weights_only=True if checkpoint else None,
        )
    assert [epoch["epoch"] for epoch in history.epochs] == [0, 1, 2]
    assert not (tmp_path / "run/plots/learning_rate.png").exists()


@pytest.mark.parametrize(("epochs", "steps"), [(1, 3), (1, 100), (4, 14)])
def test_too_few_steps_give_no_suggestion(
    new_module: Any,
    data: Any,
    make_trainer: Any,
    log_warnings: list[str],
    tmp_path: Path,
    epochs: int,
    steps: int,
) -> None:
    finder = LRFinder(steps=steps)
    make_trainer(finder, max_epochs=epochs).fit(new_module(), datamodule=data)
    assert finder.suggestion is None
    (line,) = log_warnings
    assert line.startswith("learning rate finder: no suggestion, because the range test had")
    assert "set more trainer.max_epochs, or a smaller data.batch_size" in line
    assert (tmp_path / "run/plots/learning_rate.png").stat().st_size > 0


def test_short_training_is_tested_up_to_the_highest_rate(
    new_module: Any, data: Any, make_trainer: Any
) -> None:
    finder = LRFinder(max_lr=1e-3)
    make_trainer(finder, max_epochs=3).fit(new_module(), datamodule=data)  # 9 steps
    assert finder.optimal_lr is not None
    assert finder.optimal_lr.results["lr"][-1] == pytest.approx(1e-3, rel=0.01)


@pytest.mark.parametrize("arguments", [{"min_lr": 0}, {"min_lr": 2}, {"steps": 0}], ids=str)
def test_finder_rejects_settings_out_of_range(arguments: dict[str, Any]) -> None:
    (name,) = arguments
    with pytest.raises(ValueError, match=name):
        LRFinder(**arguments)
