"""Observers of a run that was interrupted, or whose disk is full."""

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback
from PIL import Image

from cls_callbacks import BestAndLastCheckpoint, ImageThroughputMonitor, TrainingHistoryWriter
from cls_callbacks.observers.plots import save_plot


class Dies(Callback):
    """Ends the training as a killed process does, after some optimizer steps."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_batch_start(self, trainer: Any, *args: Any) -> None:
        if trainer.global_step == self.steps:
            raise KeyError("killed")


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
def test_throughput_counts_every_image_of_a_run_that_was_interrupted(
    module: Any, new_module: Any, data: Any, make_trainer: Any, tmp_path: Path, steps: int
) -> None:
    """D15: three steps an epoch, so the run is resumed within and between epochs."""
    last = tmp_path / "run/checkpoints/last.ckpt"
    callbacks = [ImageThroughputMonitor(), BestAndLastCheckpoint(every_n_steps=1)]
    with pytest.raises(KeyError, match="killed"):
        make_trainer(*callbacks, Dies(steps), max_epochs=2).fit(module, datamodule=data)

    throughput = ImageThroughputMonitor()
    resumed = make_trainer(throughput, BestAndLastCheckpoint(), max_epochs=2)
    resumed.fit(new_module(), datamodule=data, ckpt_path=last, weights_only=True)
    assert throughput.images == 96
    assert throughput.seconds > 0
    assert float(resumed.callback_metrics["images_per_second"]) > 0
    assert 0 <= float(resumed.callback_metrics["data_wait"]) <= 1


def test_a_run_killed_after_its_last_epoch_still_gets_its_history(
    module: Any, new_module: Any, data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    """C2: Lightning does not start such a training again, so `on_train_end` is not called."""
    run = tmp_path / "run"
    callbacks = [TrainingHistoryWriter(), BestAndLastCheckpoint()]
    make_trainer(*callbacks, max_epochs=1).fit(module, datamodule=data)
    metrics = (run / "metrics.csv").read_text()
    (run / "metrics.csv").unlink()
    (run / "plots/history.png").unlink()

    callbacks = [TrainingHistoryWriter(), BestAndLastCheckpoint()]
    make_trainer(*callbacks, max_epochs=1).fit(
        new_module(),
        datamodule=data,
        ckpt_path=run / "checkpoints/last.ckpt",
        weights_only=True,
    )
    assert (run / "metrics.csv").read_text() == metrics
    assert (run / "plots/history.png").exists()


def test_a_plot_that_cannot_be_written_is_a_warning(
    make_trainer: Any, tmp_path: Path, log_warnings: list[str]
) -> None:
    """C5."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run/plots").write_text("a file in place of the folder")
    save_plot(make_trainer(), Image.new("RGB", (4, 4)), "history")
    assert len(log_warnings) == 1
    assert "plots/history.png: no plot" in log_warnings[0]


def test_metrics_that_cannot_be_written_are_a_warning_until_the_training_ends(
    module: Any, data: Any, make_trainer: Any, tmp_path: Path, log_warnings: list[str]
) -> None:
    """C5: checkpoints decide whether a full disk ends training; a finished run has its metrics."""
    metrics = tmp_path / "run/metrics.csv"
    metrics.mkdir(parents=True)
    with pytest.raises(OSError, match=r"metrics\.csv"):
        make_trainer(TrainingHistoryWriter(), max_epochs=2).fit(module, datamodule=data)
    assert len(log_warnings) == 2
    assert all(str(metrics) in line for line in log_warnings)
