from pathlib import Path
from typing import Any

import torch
from loguru import logger

from cls_callbacks import (
    AtomicCheckpointIO,
    BestAndLastCheckpoint,
    LRFinder,
    TrainingHistory,
)
from cls_data import ClassificationDataModule


def test_a_rate_is_suggested_and_the_training_stays_the_same(
    new_module: Any, data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    lines: list[str] = []
    sink = logger.add(lines.append, format="{message}")
    weights, histories = [], []
    for more in ([], [LRFinder(max_lr=0.1, steps=24)]):
        module, history = new_module(), TrainingHistory()
        fresh = ClassificationDataModule(data.config, data.preprocessing)
        callbacks = [*more, BestAndLastCheckpoint("valid_top1", "max"), history]
        make_trainer(*callbacks, max_epochs=8, plugins=[AtomicCheckpointIO()]).fit(
            module, datamodule=fresh
        )
        weights.append(module.state_dict())
        histories.append(history.epochs)
    logger.remove(sink)
    assert all(torch.equal(weights[0][name], tensor) for name, tensor in weights[1].items())
    assert histories[0] == histories[1]
    assert (
        len(
            [
                line
                for line in lines
                if "range test: the loss fell fastest at a learning rate of" in line
            ]
        )
        == 1
    )
    assert (tmp_path / "run/plots/learning_rate.png").stat().st_size > 0
    assert list((tmp_path / "run").glob(".*")) == []


def test_a_run_that_goes_on_is_left_alone(
    new_module: Any, data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    last = tmp_path / "run/checkpoints/last.ckpt"
    for epochs, checkpoint in ((1, None), (3, last)):
        more = [LRFinder()] if checkpoint else []
        history = TrainingHistory()
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


def test_too_few_steps_for_a_suggestion_are_told(
    new_module: Any, data: Any, make_trainer: Any
) -> None:
    lines: list[str] = []
    sink = logger.add(lines.append, format="{message}", level="WARNING")
    make_trainer(LRFinder(steps=3), max_epochs=1).fit(new_module(), datamodule=data)
    logger.remove(sink)
    assert len([line for line in lines if "range test: too few steps" in line]) == 1
