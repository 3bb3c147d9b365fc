"""Fit a ClassificationModule with a transfer, a teacher, and a plateau schedule."""

import copy
import functools
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from torch import nn

from cls_data import ClassificationDataModule, DataModuleConfig, SyntheticNumbers
from cls_export.contract.preprocessing import Preprocessing
from cls_models import (
    ClassificationModule,
    DistillationLoss,
    NonfiniteLossError,
    Transfer,
    plateau,
    warmup_linear,
)

EPOCHS = 4


@pytest.fixture
def data(tmp_path: Path) -> ClassificationDataModule:
    synthetic = SyntheticNumbers(classes=("0", "1", "7"), train=8, valid=4, test=3)
    settings = DataModuleConfig(root=tmp_path / "set", batch_size=8, synthetic=synthetic, gate=None)
    return ClassificationDataModule(
        settings, Preprocessing(size=(16, 16), mean=(0, 0, 0), std=(1, 1, 1))
    )


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
        nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU()),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 3),
    )


def classifier(**settings: Any) -> ClassificationModule:
    arguments: dict[str, Any] = {
        "loss": nn.CrossEntropyLoss(),
        "optimizer": functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.1),
        **settings,
    }
    return ClassificationModule(network(), 3, **arguments)


def trainer(folder: Path, **settings: Any) -> Trainer:
    arguments: dict[str, Any] = {
        "accelerator": "cpu",
        "max_epochs": EPOCHS,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "default_root_dir": folder,
        "log_every_n_steps": 1,
        **settings,
    }
    return Trainer(**arguments)


class EpochRecorder(Callback):
    """Record the learning rate and the weights of each epoch, and save a checkpoint."""

    def __init__(self) -> None:
        self.weights: list[dict[str, torch.Tensor]] = []
        self.rates: list[float] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        backbone: Any = pl_module.backbone
        self.weights.append({name: value.clone() for name, value in backbone.state_dict().items()})
        trainer.save_checkpoint(Path(trainer.default_root_dir) / f"{trainer.current_epoch}.ckpt")


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_frozen_layers_and_statistics_are_bit_identical_after_fit(
    data: ClassificationDataModule, tmp_path: Path
) -> None:
    module = classifier(transfer=Transfer(frozen="all_but_head"))
    before = copy.deepcopy(module.backbone.state_dict())
    trainer(tmp_path).fit(module, datamodule=data)
    assert changed(before, module.backbone.state_dict()) == {"4.weight", "4.bias"}


def test_frozen_batch_norms_are_bit_identical_while_other_layers_train(
    data: ClassificationDataModule, tmp_path: Path
) -> None:
    module = classifier(transfer=Transfer(batch_norm="frozen"))
    before = copy.deepcopy(module.backbone.state_dict())
    trainer(tmp_path).fit(module, datamodule=data)
    trained = {"0.0.weight", "0.0.bias", "1.0.weight", "1.0.bias", "4.weight", "4.bias"}
    assert changed(before, module.backbone.state_dict()) == trained


def test_layers_train_from_the_epoch_that_unfreezes_them(
    data: ClassificationDataModule, tmp_path: Path
) -> None:
    recorder = EpochRecorder()
    module = classifier(transfer=Transfer(frozen="all_but_head", unfreeze_at=(1, 3)))
    stages = [copy.deepcopy(module.backbone.state_dict())]
    trainer(tmp_path, callbacks=[recorder]).fit(module, datamodule=data)
    stages += recorder.weights
    trained = [{name[0] for name in changed(*pair)} for pair in itertools.pairwise(stages)]
    assert trained == [{"4"}, {"1", "4"}, {"1", "4"}, {"0", "1", "4"}]


def test_resumed_gradual_unfreezing_gives_the_same_weights(
    data: ClassificationDataModule, tmp_path: Path
) -> None:
    transfer = Transfer(frozen="all_but_head", unfreeze_at=(1, 3), layer_decay=0.5)
    whole = classifier(transfer=transfer)
    trainer(tmp_path, callbacks=[EpochRecorder()]).fit(whole, datamodule=data)
    for epoch in range(EPOCHS - 1):
        resumed = classifier(transfer=transfer)
        checkpoint = tmp_path / f"{epoch}.ckpt"
        trainer(tmp_path / "again").fit(
            resumed, datamodule=data, ckpt_path=checkpoint, weights_only=True
        )
        assert changed(whole.backbone.state_dict(), resumed.backbone.state_dict()) == set(), epoch


def test_cached_features_train_the_same_head_as_images(
    data: ClassificationDataModule, tmp_path: Path
) -> None:
    cached, plain = (
        classifier(transfer=Transfer(frozen="all_but_head", cache_features=c))
        for c in (True, False)
    )
    for module in (cached, plain):
        trainer(tmp_path).fit(module, datamodule=data)
    ours, theirs = cached.backbone.state_dict(), plain.backbone.state_dict()
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-5) for name in ours)
    assert cached.state_dict().keys() == plain.state_dict().keys()


def test_teacher_trains_the_student_and_is_not_in_checkpoints(
    data: ClassificationDataModule, tmp_path: Path
) -> None:
    teacher = network()
    nn.init.constant_(teacher[4].weight, 0)
    teacher[4].bias.data = torch.tensor([9.0, 0.0, 0.0])
    student = classifier(distillation=DistillationLoss(teacher, temperature=1, share=1))
    recorder = EpochRecorder()
    trainer(tmp_path, callbacks=[recorder], max_epochs=20).fit(student, datamodule=data)
    trainer(tmp_path).validate(student, datamodule=data, verbose=False)
    assert student.outputs is not None
    assert (student.outputs.logits.argmax(dim=1) == 0).all(), "the teacher always predicts class 0"
    assert student.state_dict().keys() == classifier().state_dict().keys()
    saved = torch.load(tmp_path / "0.ckpt", weights_only=True)
    assert saved["state_dict"].keys() == student.state_dict().keys()
    assert (
        sum(len(group["params"]) for group in saved["optimizer_states"][0]["param_groups"]) == 10
    ), "only those of the student"


def test_plateau_lowers_the_rate_and_resumes_with_the_same_rates(
    data: ClassificationDataModule, tmp_path: Path
) -> None:
    # No improvement reaches the threshold, so every second validation halves the rate.
    schedule = functools.partial(plateau, patience=1, threshold=2.0)
    recorder = EpochRecorder()
    trainer(tmp_path, max_epochs=6, callbacks=[recorder]).fit(
        classifier(scheduler=schedule), datamodule=data
    )
    assert recorder.rates == pytest.approx([0.1, 0.1, 0.1, 0.05, 0.05, 0.025])
    for epoch in range(5):
        again = EpochRecorder()
        trainer(tmp_path / "again", max_epochs=6, callbacks=[again]).fit(
            classifier(scheduler=schedule),
            datamodule=data,
            ckpt_path=tmp_path / f"{epoch}.ckpt",
            weights_only=True,
        )
        assert again.rates == recorder.rates[epoch + 1 :], epoch


@pytest.mark.parametrize("every", [1, 2, 1000, 0])
def test_nonfinite_loss_ends_training_with_advice(
    data: ClassificationDataModule, tmp_path: Path, every: int
) -> None:
    module = classifier(optimizer=functools.partial(torch.optim.SGD, lr=1e30))
    with pytest.raises(
        NonfiniteLossError,
        match=r"the training loss became (nan|inf) in epoch 1.*Lower optimizer.lr",
    ):
        trainer(tmp_path, log_every_n_steps=every).fit(module, datamodule=data)


@pytest.mark.parametrize("every", [1, 3])
def test_nonfinite_loss_error_names_the_images_of_the_first_batch(
    data: ClassificationDataModule, tmp_path: Path, every: int
) -> None:
    class MakeNan(Callback):
        def __init__(self) -> None:
            self.paths: list[str] = []

        def on_train_batch_start(
            self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
        ) -> None:
            if batch_idx == 1:
                batch["images"][0] = float("nan")
                self.paths = [
                    str(data.records("train")[row].path) for row in batch["index"][:5].tolist()
                ]

    make_nan = MakeNan()
    with pytest.raises(NonfiniteLossError) as raised:
        trainer(tmp_path, log_every_n_steps=every, callbacks=[make_nan]).fit(
            classifier(), datamodule=data
        )
    assert f"First in the batch of {', '.join(make_nan.paths)}" in str(raised.value)


def test_nonfinite_validation_loss_ends_training_when_the_last_step_diverged(
    data: ClassificationDataModule, tmp_path: Path
) -> None:
    module = classifier(optimizer=functools.partial(torch.optim.SGD, lr=float("inf")))
    with pytest.raises(
        NonfiniteLossError, match="the validation loss became nan in epoch 1, at or before step 1"
    ):
        trainer(tmp_path, limit_train_batches=1, max_epochs=1).fit(module, datamodule=data)


def test_learning_rate_is_logged(data: ClassificationDataModule, tmp_path: Path) -> None:
    running = trainer(tmp_path)
    running.fit(classifier(), datamodule=data)
    assert float(running.callback_metrics["lr"]) == pytest.approx(0.1)


class RecordingLogger(Logger):
    """Record metrics with their steps."""

    name, version = "all", 0

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int, dict[str, float]]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        assert step is not None
        self.rows.append((step, metrics))

    def log_hyperparams(self, *args: Any, **settings: Any) -> None:
        pass


class StepRecorder(Callback):
    """Record the learning rate and the loss of each step."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.losses: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any
    ) -> None:
        self.losses.append(float(outputs["loss"]))


def test_logger_gets_the_rate_and_loss_of_the_logged_step(
    data: ClassificationDataModule, tmp_path: Path
) -> None:
    recorder, logger = StepRecorder(), RecordingLogger()
    module = classifier(scheduler=functools.partial(warmup_linear, warmup=0.5))
    trainer(tmp_path, callbacks=[recorder], logger=logger, log_every_n_steps=3).fit(
        module, datamodule=data
    )
    rows = [(step, row) for step, row in logger.rows if "lr" in row]
    assert [step for step, _ in rows] == [2, 5, 8, 11]
    for step, row in rows:
        assert row["lr"] == pytest.approx(recorder.rates[step])
        assert row["train_loss_step"] == pytest.approx(recorder.losses[step])


def test_seeding_queues_no_calls_for_unused_devices(
    data: ClassificationDataModule, tmp_path: Path
) -> None:
    before = len(torch.cuda._queued_calls)
    trainer(tmp_path, max_epochs=1).fit(classifier(), datamodule=data)
    assert len(torch.cuda._queued_calls) == before


class SaveAt(Callback):
    """Save a checkpoint after one training batch."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(Path(trainer.default_root_dir) / "middle.ckpt")


class MetricRecorder(Callback):
    """Record the metrics of each epoch."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.epochs.append({name: float(value) for name, value in trainer.callback_metrics.items()})


@pytest.mark.parametrize("every", [1, 1000])
def test_epoch_resumed_in_the_middle_logs_the_same_metrics(
    data: ClassificationDataModule, tmp_path: Path, every: int
) -> None:
    settings: dict[str, Any] = {"max_epochs": 2, "log_every_n_steps": every}
    schedule = functools.partial(warmup_linear, warmup=0.5)
    whole, rest = MetricRecorder(), MetricRecorder()
    trainer(tmp_path, callbacks=[whole, SaveAt(4)], **settings).fit(
        classifier(scheduler=schedule), datamodule=data
    )
    again = trainer(tmp_path, callbacks=[rest], **settings)
    again.fit(
        classifier(scheduler=schedule),
        datamodule=data,
        ckpt_path=tmp_path / "middle.ckpt",
        weights_only=True,
    )
    assert rest.epochs == whole.epochs[1:]
    assert {"train_loss", "train_top1", "lr", "valid_loss"} <= rest.epochs[0].keys()
