import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from cls_callbacks import EMA, BestAndLastCheckpoint, PreemptionCheckpoint, TrainingInterrupted

EPOCHS = 3
"""Each has three training batches and one validation batch."""


class Send(Callback):
    """Send a signal to this process at one moment of its training."""

    def __init__(self, hook: str, epoch: int, batch: int = 0, number: int = signal.SIGTERM) -> None:
        self.moment = (hook, epoch, batch)
        self.number = number

    def send(self, trainer: Any, hook: str, batch: int = 0) -> None:
        if (hook, trainer.current_epoch, batch) == self.moment:
            os.kill(os.getpid(), self.number)

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        self.send(trainer, "batch", batch_idx)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        self.send(trainer, "validation")

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.send(trainer, "end")


def callbacks(*more: Callback, asynchronous: bool = False) -> list[Callback]:
    return [
        EMA(decay=0.9),
        BestAndLastCheckpoint("valid_loss", "min", asynchronous=asynchronous),
        PreemptionCheckpoint(),
        *more,
    ]


def weights(folder: Path, name: str = "last") -> dict[str, Any]:
    checkpoint: dict[str, Any] = torch.load(folder / f"checkpoints/{name}.ckpt", weights_only=True)
    return {
        "step": checkpoint["global_step"],
        **checkpoint["state_dict"],
        **{f"raw {key}": value for key, value in checkpoint["raw_state_dict"].items()},
    }


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(torch.as_tensor(one[key]), torch.as_tensor(other[key])) for key in one
    )


@pytest.fixture
def whole(
    new_module: Any, data: Any, make_trainer: Any, tmp_path: Path, settings: dict[str, Any]
) -> Path:
    """The run folder of an uninterrupted training."""
    folder = tmp_path / "whole"
    make_trainer(*callbacks(), max_epochs=EPOCHS, default_root_dir=folder, **settings).fit(
        new_module(), datamodule=data
    )
    return folder


MOMENTS = {
    "the first step": ("batch", 0, 0, 1),
    "in the middle of an epoch": ("batch", 1, 1, 5),
    "the last step of an epoch": ("batch", 1, 2, 6),
    "a validation": ("validation", 1, 0, 6),
    "the end of an epoch": ("end", 0, 0, 3),
    "the end of the last epoch": ("end", 2, 0, 9),
}


@pytest.mark.parametrize("settings", [{}], ids=["plain"])
@pytest.mark.parametrize(
    ("moment", "asynchronous"),
    [
        *((moment, False) for moment in MOMENTS),
        ("in the middle of an epoch", True),
        ("a validation", True),
        ("the end of an epoch", True),
    ],
)
def test_interrupted_training_resumes_exactly(
    whole: Path,
    new_module: Any,
    data: Any,
    make_trainer: Any,
    tmp_path: Path,
    moment: str,
    asynchronous: bool,
) -> None:
    hook, epoch, batch, step = MOMENTS[moment]
    sender = Send(hook, epoch, batch)
    with pytest.raises(TrainingInterrupted) as caught:
        make_trainer(*callbacks(sender, asynchronous=asynchronous), max_epochs=EPOCHS).fit(
            new_module(), datamodule=data
        )
    assert caught.value.code == 143
    assert weights(tmp_path / "run")["step"] == step
    last = tmp_path / "run/checkpoints/last.ckpt"
    make_trainer(*callbacks(asynchronous=asynchronous), max_epochs=EPOCHS).fit(
        new_module(), datamodule=data, ckpt_path=last, weights_only=True
    )
    for name in ("last", "best"):
        assert same(weights(tmp_path / "run", name), weights(whole, name)), name


@pytest.mark.parametrize(
    ("settings", "batch", "step"),
    [
        ({"accumulate_grad_batches": 2}, 0, 1),
        ({"check_val_every_n_epoch": 3}, 2, 3),
        ({"val_check_interval": 2}, 1, 2),
    ],
    ids=[
        "gradient accumulation",
        "no validation after the epoch",
        "validation in mid-epoch",
    ],
)
def test_training_exits_at_the_next_batch_that_resumes_exactly(
    whole: Path,
    new_module: Any,
    data: Any,
    make_trainer: Any,
    tmp_path: Path,
    settings: dict[str, Any],
    batch: int,
    step: int,
) -> None:
    sender = Send("batch", 0, batch)
    with pytest.raises(TrainingInterrupted):
        make_trainer(*callbacks(sender), max_epochs=EPOCHS, **settings).fit(
            new_module(), datamodule=data
        )
    assert weights(tmp_path / "run")["step"] == step
    last = tmp_path / "run/checkpoints/last.ckpt"
    again = make_trainer(*callbacks(), max_epochs=EPOCHS, **settings)
    again.fit(new_module(), datamodule=data, ckpt_path=last, weights_only=True)
    assert same(weights(tmp_path / "run"), weights(whole))


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGUSR1", 143), ("SIGINT", 130)])
def test_signal_sets_exit_code_and_restores_handlers(
    module: Any, data: Any, make_trainer: Any, name: str, code: int
) -> None:
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with pytest.raises(TrainingInterrupted) as caught:
        make_trainer(*callbacks(Send("batch", 0, 0, number))).fit(module, datamodule=data)
    assert (caught.value.code, caught.value.signal) == (code, name)
    assert signal.getsignal(number) == before


def test_handlers_are_restored_after_training_without_a_signal(
    module: Any, data: Any, make_trainer: Any
) -> None:
    signals = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
    before = [signal.getsignal(number) for number in signals]
    make_trainer(*callbacks(), max_epochs=1).fit(module, datamodule=data)
    assert [signal.getsignal(number) for number in signals] == before


def test_training_in_another_thread_installs_no_handlers(
    module: Any, data: Any, make_trainer: Any
) -> None:
    trainer = make_trainer(PreemptionCheckpoint(), BestAndLastCheckpoint(), max_epochs=1)
    failed: list[BaseException] = []

    def train() -> None:
        try:
            trainer.fit(module, datamodule=data)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert failed == []


WAITING_TRAINING = """
import sys, time
sys.path.insert(0, sys.argv[1])
import conftest
from lightning.pytorch import Callback, Trainer
from cls_callbacks import BestAndLastCheckpoint, PreemptionCheckpoint
from cls_data import ClassificationDataModule, DataModuleConfig
from cls_export.contract.preprocessing import Preprocessing

class Wait(Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        print("waiting", flush=True)
        end = time.monotonic() + float(sys.argv[4])
        while time.monotonic() < end:
            time.sleep(0.05)

preprocessing = Preprocessing(size=(16, 16), mean=(0.5,) * 3, std=(0.5,) * 3)
data = ClassificationDataModule(
    DataModuleConfig(root=sys.argv[2], batch_size=16), preprocessing
)
Trainer(
    accelerator="cpu",
    max_epochs=3,
    logger=False,
    enable_progress_bar=False,
    enable_model_summary=False,
    default_root_dir=sys.argv[3],
    callbacks=[BestAndLastCheckpoint(), PreemptionCheckpoint(), Wait()],
).fit(conftest.SmallModule(), datamodule=data)
"""


@pytest.mark.parametrize(
    ("step_seconds", "apart", "code", "saved"),
    [(2.0, 0.05, 143, True), (60.0, 1.5, 130, False)],
    ids=["echo", "second"],
)
def test_second_signal_exits_at_once_unless_it_echoes_the_first(
    data_root: Path, tmp_path: Path, step_seconds: float, apart: float, code: int, saved: bool
) -> None:
    arguments = [
        str(Path(__file__).parents[1]),  # the folder of conftest.py
        str(data_root),
        str(tmp_path / "run"),
        str(step_seconds),
    ]
    command = [sys.executable, "-c", WAITING_TRAINING, *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert "waiting\n" in iter(process.stdout.readline, ""), "training started"
        process.send_signal(signal.SIGTERM)
        time.sleep(apart)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == code
        assert process.stderr is not None
        assert "SIGTERM: Saving after this batch, then exiting." in process.stderr.read()
    assert (tmp_path / "run/checkpoints/last.ckpt").exists() == saved


def test_validation_interval_across_epochs_survives_an_interruption(
    new_module: Any, data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    # Epochs of two batches, and a validation after every third batch: the signal arrives in the
    # batch before a validation.
    class Validated(Callback):
        def __init__(self) -> None:
            self.steps: list[int] = []

        def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
            self.steps.append(trainer.global_step)

    limits: dict[str, Any] = {
        "limit_train_batches": 2,
        "val_check_interval": 3,
        "check_val_every_n_epoch": None,
    }
    first, rest = Validated(), Validated()
    with pytest.raises(TrainingInterrupted):
        make_trainer(*callbacks(first, Send("batch", 1, 0)), max_epochs=EPOCHS, **limits).fit(
            new_module(), datamodule=data
        )
    last = tmp_path / "run/checkpoints/last.ckpt"
    again = make_trainer(*callbacks(rest), max_epochs=EPOCHS, **limits)
    again.fit(new_module(), datamodule=data, ckpt_path=last, weights_only=True)
    assert first.steps + rest.steps == [3, 6]
