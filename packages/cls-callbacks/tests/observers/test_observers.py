import csv
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loguru import logger
from PIL import Image
from rich.console import Console

from cls_callbacks import (
    EMA,
    AugmentedSamples,
    BestAndLastCheckpoint,
    ConfusionMatrix,
    DatasetStatisticsCallback,
    EpochLog,
    PredictionsWriter,
    ProgressBar,
    Throughput,
    TrainingHistory,
)
from cls_callbacks.observers.confusion_matrix import confusion_counts, confusion_figure
from cls_callbacks.observers.dataset_statistics import distribution_figure, statistics_table
from cls_data import DatasetStatistics, EvaluationOutputs, Predictions


def picture_size(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def test_statistics_are_shown_drawn_and_written(
    module: Any, data: Any, make_trainer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_trainer(DatasetStatisticsCallback(), max_epochs=1).fit(module, datamodule=data)
    assert "3 classes, imbalance 1.0-fold in train" in capsys.readouterr().out
    written = DatasetStatistics.model_validate(
        json.loads((tmp_path / "run/statistics.json").read_text())
    )
    assert written == data.statistics
    assert written.counts["train"] == {"0": 16, "1": 16, "7": 16}
    assert picture_size(tmp_path / "run/plots/class_distribution.png")[0] > 200


def test_a_long_table_shows_the_largest_and_the_smallest_classes() -> None:
    names = tuple(f"{number:03d}" for number in range(100))
    counts = {"train": {name: 1000 - int(name) for name in names}}
    statistics = DatasetStatistics.model_validate(
        {
            "classes": names,
            "counts": counts,
            "sizes": {"train": {"width": (1, 2, 3), "height": (1, 2, 3)}},
        }
    )
    table = statistics_table(statistics, rows=6)
    shown = list(table.columns[0].cells)
    assert shown[:7] == ["'000'", "'001'", "'002'", "…", "'097'", "'098'", "'099'"]


def test_class_names_of_any_kind_are_shown_as_they_are(tmp_path: Path) -> None:
    names = ("[/x]", "[red]", r"$\foo$", "", "<b>")
    sizes = {"train": {"width": (1, 2, 3), "height": (1, 2, 3)}}
    counts = {"train": dict.fromkeys(names, 2)}
    statistics = DatasetStatistics.model_validate(
        {"classes": names, "counts": counts, "sizes": sizes}
    )
    console = Console(width=100, record=True)
    console.print(statistics_table(statistics, rows=20))
    shown = console.export_text()
    assert all(repr(name) in shown for name in names)
    distribution_figure(statistics).savefig(tmp_path / "bars.png")
    confusion_figure(np.eye(5, dtype=np.int64), names, "valid").savefig(tmp_path / "matrix.png")


def test_loaders_in_place_of_a_data_module_are_named(
    module: Any, data: Any, make_trainer: Any
) -> None:
    data.setup()
    with pytest.raises(
        TypeError, match=r"reads a cls_data.ClassificationDataModule, and the trainer has NoneType"
    ):
        make_trainer(AugmentedSamples()).fit(
            module, train_dataloaders=data.train_dataloader(), val_dataloaders=data.val_dataloader()
        )


def test_confusion_counts_put_true_classes_in_rows() -> None:
    logits = torch.eye(3)[torch.tensor([0, 2, 2, 1])]
    outputs = EvaluationOutputs("valid", logits, torch.tensor([0, 1, 1, 1]), torch.arange(4))
    assert confusion_counts(outputs, 3).tolist() == [[1, 0, 0], [0, 1, 2], [0, 0, 0]]


@pytest.mark.parametrize("size", [2, 43, 300])
def test_a_confusion_matrix_of_any_size_is_drawn(size: int, tmp_path: Path) -> None:
    counts = np.diag(np.arange(size))
    figure = confusion_figure(counts, tuple(str(number) for number in range(size)), "valid")
    assert figure.axes[0].get_title().startswith(f"valid: {counts.sum()} of {counts.sum()} right")
    figure.savefig(tmp_path / "matrix.png")


def test_evaluations_leave_pictures_and_predictions_and_training_none(
    module: Any, data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    trainer = make_trainer(ConfusionMatrix(), PredictionsWriter(), max_epochs=1)
    trainer.fit(module, datamodule=data)
    assert not (run / "predictions").exists()
    assert not (run / "plots").exists()
    for split, evaluate in (("valid", trainer.validate), ("test", trainer.test)):
        evaluate(module, datamodule=data, verbose=False)
        assert (run / f"plots/confusion_{split}.png").exists()
        predictions = Predictions.load(run / f"predictions/{split}.npz")
        assert predictions.ids.tolist() == [record.id for record in data.records(split)]
        assert np.array_equal(predictions.logits, module.outputs.logits.numpy())
        assert predictions.classes.tolist() == ["0", "1", "7"]


def test_the_history_goes_on_through_an_interruption(
    new_module: Any, data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    last = tmp_path / "run/checkpoints/last.ckpt"
    for epochs in (2, 4):
        history = TrainingHistory()
        trainer = make_trainer(EMA(), history, BestAndLastCheckpoint(), max_epochs=epochs)
        trainer.fit(
            new_module(),
            datamodule=data,
            ckpt_path=last if last.exists() else None,
            weights_only=True,
        )
    assert [epoch["epoch"] for epoch in history.epochs] == [0, 1, 2, 3]
    assert all(
        {"train_loss", "valid_loss", "valid_top1", "ema_decay"} <= epoch.keys()
        for epoch in history.epochs
    )
    with (tmp_path / "run/metrics.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["step"] for row in rows] == ["3", "6", "9", "12"]
    assert [float(row["valid_loss"]) for row in rows] == [
        epoch["valid_loss"] for epoch in history.epochs
    ]
    assert picture_size(tmp_path / "run/plots/history.png")[0] > 200


def test_an_epoch_without_validation_repeats_no_earlier_one(
    module: Any, data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    history = TrainingHistory()
    make_trainer(history, max_epochs=3, check_val_every_n_epoch=2).fit(module, datamodule=data)
    assert ["valid_loss" in epoch for epoch in history.epochs] == [False, True, False]
    assert all("train_loss" in epoch for epoch in history.epochs)


def test_an_epoch_cut_short_repeats_no_earlier_one(
    module: Any, data: Any, make_trainer: Any
) -> None:
    history = TrainingHistory()
    make_trainer(history, max_epochs=-1, max_steps=4).fit(module, datamodule=data)
    assert [epoch["step"] for epoch in history.epochs] == [3, 4]
    assert ["train_loss" in epoch for epoch in history.epochs] == [True, False]


def test_throughput_counts_images_and_time(module: Any, data: Any, make_trainer: Any) -> None:
    throughput = Throughput()
    trainer = make_trainer(throughput, max_epochs=2)
    trainer.fit(module, datamodule=data)
    assert throughput.images == 96
    assert throughput.seconds > 0
    assert float(trainer.callback_metrics["images_per_second"]) > 0
    assert 0 <= float(trainer.callback_metrics["data_wait"]) <= 1
    assert "gpu_memory_gb" not in trainer.callback_metrics


def test_a_slow_loader_is_seen_as_time_that_waits_for_data(
    module: Any, data: Any, make_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick, waits = data.on_after_batch_transfer, []
    for seconds in (0.0, 0.2):
        monkeypatch.setattr(
            data,
            "on_after_batch_transfer",
            lambda *given, s=seconds: (time.sleep(s), quick(*given))[1],
        )
        trainer = make_trainer(Throughput(), max_epochs=1)
        trainer.fit(module, datamodule=data)
        waits.append(float(trainer.callback_metrics["data_wait"]))
    assert waits[1] > 0.5
    assert waits[1] > waits[0]


def test_the_bar_counts_epochs_as_the_log_does(
    module: Any, data: Any, make_trainer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    make_trainer(ProgressBar(), max_epochs=2, enable_progress_bar=True).fit(module, datamodule=data)
    shown = capsys.readouterr().out
    assert "Epoch 2/2" in shown
    assert "Epoch 1/1" not in shown


def test_the_bar_reads_metrics_after_a_validation_and_not_after_every_step(
    module: Any, data: Any, make_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    whole = ProgressBar.get_metrics

    def reading(self: ProgressBar, trainer: Any, pl_module: Any) -> Any:
        read.append(trainer.global_step)
        return whole(self, trainer, pl_module)

    monkeypatch.setattr(ProgressBar, "get_metrics", reading)
    make_trainer(ProgressBar(), max_epochs=2, enable_progress_bar=True).fit(module, datamodule=data)
    assert set(read) == {3, 6}, "an epoch has three steps, and ends with its validation"


def test_every_epoch_is_one_line(module: Any, data: Any, make_trainer: Any) -> None:
    lines: list[str] = []
    sink = logger.add(lines.append, format="{message}")
    make_trainer(EpochLog(), max_epochs=2).fit(module, datamodule=data)
    logger.remove(sink)
    assert [line.split(":")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    assert all("train_loss" in line and "valid_top1" in line for line in lines)


def test_augmented_samples_are_drawn_one_column_an_image(
    module: Any, data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    make_trainer(AugmentedSamples(images=5, draws=2), max_epochs=1).fit(module, datamodule=data)
    assert picture_size(tmp_path / "run/plots/augmented.png") == (5 * 128, 3 * 128)
