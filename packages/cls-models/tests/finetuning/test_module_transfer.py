"""What the ClassificationModule does with a transfer, a teacher, and a schedule that waits for a metric, in real trainings."""

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
    Distillation,
    NotFiniteLossError,
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


class EveryEpoch(Callback):
    """Keeps the backbone's weights and the learning rate, and writes a checkpoint, at the end of each epoch."""

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


def test_what_is_frozen_stays_bit_for_bit_its_statistics_too(
    data: ClassificationDataModule, tmp_path: Path
) -> None:
    module = classifier(transfer=Transfer(frozen="all_but_head"))
    before = copy.deepcopy(module.backbone.state_dict())
    trainer(tmp_path).fit(module, datamodule=data)
    assert changed(before, module.backbone.state_dict()) == {"4.weight", "4.bias"}


def test_frozen_batch_norms_stay_bit_for_bit_while_all_else_trains(
    data: ClassificationDataModule, tmp_path: Path
) -> None:
    module = classifier(transfer=Transfer(batch_norm="frozen"))
    before = copy.deepcopy(module.backbone.state_dict())
    trainer(tmp_path).fit(module, datamodule=data)
    moved = {"0.0.weight", "0.0.bias", "1.0.weight", "1.0.bias", "4.weight", "4.bias"}
    assert changed(before, module.backbone.state_dict()) == moved


def test_layers_begin_to_train_when_they_are_unfrozen(
    data: ClassificationDataModule, tmp_path: Path
) -> None:
    kept = EveryEpoch()
    module = classifier(transfer=Transfer(frozen="all_but_head", unfreeze_at=(1, 3)))
    stages = [copy.deepcopy(module.backbone.state_dict())]
    trainer(tmp_path, callbacks=[kept]).fit(module, datamodule=data)
    stages += kept.weights
    moved = [{name[0] for name in changed(*pair)} for pair in itertools.pairwise(stages)]
    assert moved == [{"4"}, {"1", "4"}, {"1", "4"}, {"0", "1", "4"}]


def test_a_staged_training_that_is_resumed_ends_the_same(
    data: ClassificationDataModule, tmp_path: Path
) -> None:
    transfer = Transfer(frozen="all_but_head", unfreeze_at=(1, 3), layer_decay=0.5)
    whole = classifier(transfer=transfer)
    trainer(tmp_path, callbacks=[EveryEpoch()]).fit(whole, datamodule=data)
    for epoch in range(EPOCHS - 1):
        resumed = classifier(transfer=transfer)
        checkpoint = tmp_path / f"{epoch}.ckpt"
        trainer(tmp_path / "again").fit(
            resumed, datamodule=data, ckpt_path=checkpoint, weights_only=True
        )
        assert changed(whole.backbone.state_dict(), resumed.backbone.state_dict()) == set(), epoch


def test_cached_features_train_the_same_head(
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


def test_a_teacher_teaches_and_is_in_no_checkpoint(
    data: ClassificationDataModule, tmp_path: Path
) -> None:
    teacher = network()
    nn.init.constant_(teacher[4].weight, 0)
    teacher[4].bias.data = torch.tensor([9.0, 0.0, 0.0])
    student = classifier(distillation=Distillation(teacher, temperature=1, share=1))
    kept = EveryEpoch()
    trainer(tmp_path, callbacks=[kept], max_epochs=20).fit(student, datamodule=data)
    trainer(tmp_path).validate(student, datamodule=data, verbose=False)
    assert student.outputs is not None
    assert (student.outputs.logits.argmax(dim=1) == 0).all(), "the teacher only ever says 0"
    assert student.state_dict().keys() == classifier().state_dict().keys()
    saved = torch.load(tmp_path / "0.ckpt", weights_only=True)
    assert saved["state_dict"].keys() == student.state_dict().keys()
    assert (
        sum(len(group["params"]) for group in saved["optimizer_states"][0]["param_groups"]) == 10
    ), "the student's"


def test_a_plateau_lowers_the_rate_and_a_resumed_run_has_the_same_rates(
    data: ClassificationDataModule, tmp_path: Path
) -> None:
    # No improvement is ever large enough: the rate is halved after each second look.
    schedule = functools.partial(plateau, patience=1, threshold=2.0)
    kept = EveryEpoch()
    trainer(tmp_path, max_epochs=6, callbacks=[kept]).fit(
        classifier(scheduler=schedule), datamodule=data
    )
    assert kept.rates == pytest.approx([0.1, 0.1, 0.1, 0.05, 0.05, 0.025])
    for epoch in range(5):
        again = EveryEpoch()
        trainer(tmp_path / "again", max_epochs=6, callbacks=[again]).fit(
            classifier(scheduler=schedule),
            datamodule=data,
            ckpt_path=tmp_path / f"{epoch}.ckpt",
            weights_only=True,
        )
        assert again.rates == kept.rates[epoch + 1 :], epoch


@pytest.mark.parametrize("every", [1, 2, 1000, 0])
def test_a_loss_that_is_not_finite_ends_training_with_advice(
    data: ClassificationDataModule, tmp_path: Path, every: int
) -> None:
    module = classifier(optimizer=functools.partial(torch.optim.SGD, lr=1e30))
    with pytest.raises(
        NotFiniteLossError,
        match=r"the training loss became (nan|inf) in epoch 1.*lower optimizer.lr",
    ):
        trainer(tmp_path, log_every_n_steps=every).fit(module, datamodule=data)


@pytest.mark.parametrize("every", [1, 3])
def test_the_images_of_the_first_batch_whose_loss_is_not_finite_are_named(
    data: ClassificationDataModule, tmp_path: Path, every: int
) -> None:
    class Spoils(Callback):
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

    spoils = Spoils()
    with pytest.raises(NotFiniteLossError) as raised:
        trainer(tmp_path, log_every_n_steps=every, callbacks=[spoils]).fit(
            classifier(), datamodule=data
        )
    assert f"first for the batch of {', '.join(spoils.paths)}" in str(raised.value)


def test_weights_that_the_last_step_spoilt_are_no_result_of_a_training(
    data: ClassificationDataModule, tmp_path: Path
) -> None:
    module = classifier(optimizer=functools.partial(torch.optim.SGD, lr=float("inf")))
    with pytest.raises(
        NotFiniteLossError, match="the validation loss became nan in epoch 1, by step 1"
    ):
        trainer(tmp_path, limit_train_batches=1, max_epochs=1).fit(module, datamodule=data)


def test_the_learning_rate_is_logged(data: ClassificationDataModule, tmp_path: Path) -> None:
    running = trainer(tmp_path)
    running.fit(classifier(), datamodule=data)
    assert float(running.callback_metrics["lr"]) == pytest.approx(0.1)


class KeepsAll(Logger):
    """Keeps what it is given, with the step that it is said to be of."""

    name, version = "all", 0

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int, dict[str, float]]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        assert step is not None
        self.rows.append((step, metrics))

    def log_hyperparams(self, *args: Any, **settings: Any) -> None:
        pass


class EveryStep(Callback):
    """Keeps the learning rate and the loss of each step."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.losses: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any
    ) -> None:
        self.losses.append(float(outputs["loss"]))


def test_a_logger_gets_the_rate_and_the_loss_of_the_very_step_that_it_writes_down(
    data: ClassificationDataModule, tmp_path: Path
) -> None:
    seen, logger = EveryStep(), KeepsAll()
    module = classifier(scheduler=functools.partial(warmup_linear, warmup=0.5))
    trainer(tmp_path, callbacks=[seen], logger=logger, log_every_n_steps=3).fit(
        module, datamodule=data
    )
    rows = [(step, row) for step, row in logger.rows if "lr" in row]
    assert [step for step, _ in rows] == [2, 5, 8, 11]
    for step, row in rows:
        assert row["lr"] == pytest.approx(seen.rates[step])
        assert row["train_loss_step"] == pytest.approx(seen.losses[step])


def test_a_step_leaves_nothing_behind_for_devices_that_are_not_in_use(
    data: ClassificationDataModule, tmp_path: Path
) -> None:
    before = len(torch.cuda._queued_calls)
    trainer(tmp_path, max_epochs=1).fit(classifier(), datamodule=data)
    assert len(torch.cuda._queued_calls) == before


class SaveAt(Callback):
    """Writes a checkpoint at the end of one training batch."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(Path(trainer.default_root_dir) / "middle.ckpt")


class EveryMetric(Callback):
    """Keeps what each epoch logged."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.epochs.append({name: float(value) for name, value in trainer.callback_metrics.items()})


@pytest.mark.parametrize("every", [1, 1000])
def test_an_epoch_that_goes_on_in_its_middle_logs_what_an_uninterrupted_one_does(
    data: ClassificationDataModule, tmp_path: Path, every: int
) -> None:
    settings: dict[str, Any] = {"max_epochs": 2, "log_every_n_steps": every}
    schedule = functools.partial(warmup_linear, warmup=0.5)
    whole, rest = EveryMetric(), EveryMetric()
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
