import csv
import io
import json
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks.progress.rich_progress import CustomProgress
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image
from rich.console import Console

from cls_callbacks import (
    EMA,
    AugmentedSamplesPlot,
    BestAndLastCheckpoint,
    ConfusionMatrixPlot,
    DatasetStatisticsWriter,
    EpochProgressBar,
    EpochSummary,
    ImageThroughputMonitor,
    PredictionsWriter,
    TrainingHistoryWriter,
)
from cls_callbacks.observers.confusion_matrix import confusion_figure, count_confusions
from cls_callbacks.observers.plots import log_image, save_plot
from cls_callbacks.observers.sample_predictions import sample_predictions_figure
from cls_data import DatasetStatistics, EvaluationOutputs, Predictions


def image_size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def test_statistics_are_printed_plotted_and_written(
    module: Any, data: Any, make_trainer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_trainer(DatasetStatisticsWriter(), max_epochs=1).fit(module, datamodule=data)
    printed = capsys.readouterr().out
    assert "3 classes; rows: train 48" in printed
    assert "train imbalance: 1.0:1" in printed
    written = DatasetStatistics.model_validate(
        json.loads((tmp_path / "run/statistics.json").read_text())
    )
    assert written == data.statistics
    assert written.counts["train"] == {"0": 16, "1": 16, "7": 16}
    assert image_size(tmp_path / "run/plots/class_distribution.png")[0] > 200


def test_callbacks_reject_loaders_without_a_data_module(
    module: Any, data: Any, make_trainer: Any
) -> None:
    data.setup()
    with pytest.raises(TypeError, match=r"a cls_data.ClassificationDataModule, got NoneType"):
        make_trainer(AugmentedSamplesPlot()).fit(
            module, train_dataloaders=data.train_dataloader(), val_dataloaders=data.val_dataloader()
        )


def test_confusion_counts_have_true_classes_in_rows() -> None:
    logits = torch.eye(3)[torch.tensor([0, 2, 2, 1])]
    outputs = EvaluationOutputs("valid", logits, torch.tensor([0, 1, 1, 1]), torch.arange(4))
    assert count_confusions(outputs, 3).tolist() == [[1, 0, 0], [0, 1, 2], [0, 0, 0]]


@pytest.mark.parametrize("size", [2, 43, 300])
def test_confusion_matrix_of_any_size_is_plotted(size: int, tmp_path: Path) -> None:
    counts = np.diag(np.arange(size))
    figure = confusion_figure(counts, tuple(str(number) for number in range(size)), "valid")
    assert figure.axes[0].get_title().startswith(f"valid: {counts.sum()} of {counts.sum()} correct")
    figure.savefig(tmp_path / "matrix.png")


NAMES = {
    "[/x]": "[/x]",
    r"$\foo$": r"$\foo$",
    "$x^2$ \\$": "$x^2$ \\$",
    "": "(empty)",
    "<b>": "<b>",
    "\x1b[31mred": "\\x1b[31mred",
    "a\nb": r"a\nb",
    "\u202egpj\u200f": "\\u202egpj\\u200f",
    "中文 🏀": "中文 🏀",
    "x" * 10_000: "x" * 20 + "…" + "x" * 20,
}


@pytest.mark.parametrize(
    ("size", "name"), [(2, "a"), (3, "Point guard"), (50, "x" * 40), (12, "中" * 40)]
)
def test_confusion_matrix_has_room_for_its_names(size: int, name: str) -> None:
    names = (name, *(str(number) for number in range(1, size)))
    figure = confusion_figure(np.eye(size, dtype=np.int64), names, "valid")
    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        canvas.draw()
        content = figure.get_tightbbox(canvas.get_renderer())
    width, height = figure.get_size_inches()
    assert 0 <= content.x0 < content.x1 <= width
    assert 0 <= content.y0 < content.y1 <= height


def test_plots_show_class_names_as_text_never_as_markup(make_trainer: Any, tmp_path: Path) -> None:
    names = tuple(NAMES)
    size = len(names)
    figure = confusion_figure(np.eye(size, dtype=np.int64), names, "valid")
    axes = figure.axes[0]
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [label.get_text() for label in labels] == list(NAMES.values())
        assert not any(label.get_parse_math() for label in labels)

    logits = torch.eye(size).roll(1, 0)
    outputs = EvaluationOutputs("valid", logits, torch.arange(size), torch.arange(size))
    pixels = torch.zeros(size, 3, 8, 8, dtype=torch.uint8)
    samples = sample_predictions_figure(outputs, pixels, names, columns=size)
    captions = [text for text in samples.axes[0].texts if "%" in text.get_text()]
    assert len(captions) == size
    assert not any(caption.get_parse_math() for caption in captions)
    for name, plot in (("matrix", figure), ("samples", samples)):
        save_plot(make_trainer(), plot, name)
        with Image.open(tmp_path / f"run/plots/{name}.png") as image:
            assert max(image.size) < 5000


def test_tensorboard_gets_the_bytes_of_a_plot(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    path = tmp_path / "history.png"
    Image.new("RGBA", (4, 3), "red").save(path)
    tensorboard = TensorBoardLogger(tmp_path / "logs")
    log_image([tensorboard], path, step=7)
    tensorboard.experiment.close()

    events = EventAccumulator(tensorboard.log_dir).Reload()
    (image,) = events.Images("history")
    assert (image.step, image.width, image.height) == (7, 4, 3)
    assert image.encoded_image_string == path.read_bytes()


def test_the_progress_bar_stops_without_waiting_for_its_next_redraw() -> None:
    bar = EpochProgressBar()
    progress = CustomProgress(refresh_per_second=0.1, console=Console(file=io.StringIO()))
    bar.progress = progress
    progress.start()
    thread = progress.live._refresh_thread
    assert thread is not None
    bar._stop_progress()
    assert thread.done.is_set()
    assert thread.is_alive(), "it sleeps for ten seconds, and then ends"


def test_plots_and_predictions_are_written_after_evaluation_but_not_during_fit(
    module: Any, data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    trainer = make_trainer(ConfusionMatrixPlot(), PredictionsWriter(), max_epochs=1)
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


def test_a_confusion_matrix_of_too_many_classes_is_not_plotted(
    module: Any, data: Any, make_trainer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cls_callbacks.observers.confusion_matrix._MAX_CLASSES", 2)
    make_trainer(ConfusionMatrixPlot()).validate(module, datamodule=data, verbose=False)
    assert not (tmp_path / "run/plots").exists()


def test_history_continues_after_an_interruption(
    new_module: Any, data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    last = tmp_path / "run/checkpoints/last.ckpt"
    for epochs in (2, 4):
        history = TrainingHistoryWriter()
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
    assert image_size(tmp_path / "run/plots/history.png")[0] > 200


def test_epoch_without_validation_has_no_validation_metrics(
    module: Any, data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    history = TrainingHistoryWriter()
    make_trainer(history, max_epochs=3, check_val_every_n_epoch=2).fit(module, datamodule=data)
    assert ["valid_loss" in epoch for epoch in history.epochs] == [False, True, False]
    assert all("train_loss" in epoch for epoch in history.epochs)


def test_incomplete_epoch_has_no_epoch_metrics(module: Any, data: Any, make_trainer: Any) -> None:
    history = TrainingHistoryWriter()
    make_trainer(history, max_epochs=-1, max_steps=4).fit(module, datamodule=data)
    assert [epoch["step"] for epoch in history.epochs] == [3, 4]
    assert ["train_loss" in epoch for epoch in history.epochs] == [True, False]


def test_throughput_counts_images_and_seconds(module: Any, data: Any, make_trainer: Any) -> None:
    throughput = ImageThroughputMonitor()
    trainer = make_trainer(throughput, max_epochs=2)
    trainer.fit(module, datamodule=data)
    assert throughput.images == 96
    assert throughput.seconds > 0
    assert float(trainer.callback_metrics["images_per_second"]) > 0
    assert 0 <= float(trainer.callback_metrics["data_wait"]) <= 1
    assert "gpu_memory_gb" not in trainer.callback_metrics


def test_slow_loader_increases_data_wait(
    module: Any, data: Any, make_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, waits = data.on_after_batch_transfer, []
    for seconds in (0.0, 0.2):

        def delayed(*args: Any, seconds: float = seconds) -> Any:
            time.sleep(seconds)
            return original(*args)

        monkeypatch.setattr(data, "on_after_batch_transfer", delayed)
        trainer = make_trainer(ImageThroughputMonitor(), max_epochs=1)
        trainer.fit(module, datamodule=data)
        waits.append(float(trainer.callback_metrics["data_wait"]))
    assert waits[1] > 0.5
    assert waits[1] > waits[0]


def test_progress_bar_counts_epochs_from_one(
    module: Any, data: Any, make_trainer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    make_trainer(EpochProgressBar(), max_epochs=2, enable_progress_bar=True).fit(
        module, datamodule=data
    )
    printed = capsys.readouterr().out
    assert "Epoch 2/2" in printed
    assert "Epoch 1/1" not in printed


def test_progress_bar_reads_metrics_only_after_validation(
    module: Any, data: Any, make_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    original = EpochProgressBar.get_metrics

    def record_step(self: EpochProgressBar, trainer: Any, pl_module: Any) -> Any:
        steps.append(trainer.global_step)
        return original(self, trainer, pl_module)

    monkeypatch.setattr(EpochProgressBar, "get_metrics", record_step)
    make_trainer(EpochProgressBar(), max_epochs=2, enable_progress_bar=True).fit(
        module, datamodule=data
    )
    assert set(steps) == {3, 6}, "an epoch has three steps and ends with its validation"


def test_epoch_summary_logs_one_line_per_epoch(
    module: Any, data: Any, make_trainer: Any, log_messages: list[str]
) -> None:
    make_trainer(EpochSummary(), max_epochs=2).fit(module, datamodule=data)
    assert [line.split(":")[0] for line in log_messages] == ["epoch 1/2", "epoch 2/2"]
    assert all("train_loss" in line and "valid_top1" in line for line in log_messages)


def test_epoch_summary_logs_the_position_in_a_long_epoch(
    module: Any, data: Any, make_trainer: Any, log_messages: list[str]
) -> None:
    make_trainer(EpochSummary(every_seconds=0), max_epochs=1).fit(module, datamodule=data)
    *positions, summary = log_messages
    batches = [line.split(" after ")[0] for line in positions]
    assert batches == [f"epoch 1/1: {number} of 3 batches" for number in (1, 2)]
    assert "train_loss" in summary


def test_epoch_summary_says_where_a_resumed_training_goes_on(
    module: Any, data: Any, make_trainer: Any, log_messages: list[str], tmp_path: Path
) -> None:
    trainer = make_trainer(max_epochs=1)
    trainer.fit(module, datamodule=data)
    trainer.save_checkpoint(tmp_path / "one_epoch.ckpt")
    resumed = make_trainer(EpochSummary(), max_epochs=2)
    resumed.fit(module, datamodule=data, ckpt_path=tmp_path / "one_epoch.ckpt")
    assert log_messages[0] == "resuming after step 3, in epoch 2/2\n"


def test_a_resumed_training_prints_no_table(
    module: Any, data: Any, make_trainer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = make_trainer(max_epochs=1)
    trainer.fit(module, datamodule=data)
    trainer.save_checkpoint(tmp_path / "one_epoch.ckpt")
    resumed = make_trainer(DatasetStatisticsWriter(), max_epochs=2)
    resumed.fit(module, datamodule=data, ckpt_path=tmp_path / "one_epoch.ckpt")
    assert "train imbalance" not in capsys.readouterr().out
    assert (tmp_path / "run/statistics.json").exists()


def test_augmented_samples_have_one_column_per_image(
    module: Any, data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    callback = AugmentedSamplesPlot(columns=5, augmented_rows=2)
    make_trainer(callback, max_epochs=1).fit(module, datamodule=data)
    assert image_size(tmp_path / "run/plots/augmented.png") == (5 * 128, 3 * 128)
