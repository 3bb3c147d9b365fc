from pathlib import Path
from typing import Any

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
    for more in ([], [LRFinder(max_lr=0.1, steps=24)]):
        module, history = new_module(), TrainingHistoryWriter()
        fresh = ClassificationDataModule(data.config, data.preprocessing)
        callbacks = [*more, BestAndLastCheckpoint("valid_top1", "max"), history]
        make_trainer(*callbacks, max_epochs=8, plugins=[AtomicCheckpointIO()]).fit(
            module, datamodule=fresh
        )
        weights.append(module.state_dict())
        histories.append(history.epochs)
    assert all(torch.equal(weights[0][name], tensor) for name, tensor in weights[1].items())
    assert histories[0] == histories[1]
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


def test_too_few_steps_for_a_suggestion_are_logged(
    new_module: Any, data: Any, make_trainer: Any, log_warnings: list[str]
) -> None:
    make_trainer(LRFinder(steps=3), max_epochs=1).fit(new_module(), datamodule=data)
    assert len(log_warnings) == 1
    assert log_warnings[0].startswith("learning rate finder: too few steps")
