import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.nn import functional
from torch.optim import lr_scheduler

from cls_data import ClassificationDataModule, DataModuleConfig, SyntheticNumbers
from cls_export.contract.preprocessing import Preprocessing
from cls_models import VALIDATION_METRICS, ClassificationModule, warmup_cosine


@pytest.fixture
def data(tmp_path: Path) -> ClassificationDataModule:
    synthetic = SyntheticNumbers(classes=("0", "1", "7"), train=8, valid=4, test=3)
    return ClassificationDataModule(
        DataModuleConfig(
            root=tmp_path / "set", batch_size=8, eval_batch_size=5, synthetic=synthetic
        ),
        Preprocessing(size=(16, 16), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    )


def classifier(**settings: Any) -> ClassificationModule:
    torch.manual_seed(0)
    backbone = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 14 * 14, 3)
    )
    arguments: dict[str, Any] = {
        "loss": nn.CrossEntropyLoss(label_smoothing=0.1),
        "optimizer": functools.partial(torch.optim.AdamW, lr=1e-3),
        "scheduler": warmup_cosine,
        **settings,
    }
    return ClassificationModule(backbone, 3, **arguments)


def trainer(folder: Path, **settings: Any) -> Trainer:
    arguments: dict[str, Any] = {
        "accelerator": "cpu",
        "max_epochs": 2,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "default_root_dir": folder,
        **settings,
    }
    return Trainer(**arguments)


def test_fit_lowers_the_training_loss(data: ClassificationDataModule, tmp_path: Path) -> None:
    module = classifier()
    running = trainer(tmp_path, max_epochs=1)
    running.fit(module, datamodule=data)
    first = float(running.callback_metrics["train_loss"])
    running = trainer(tmp_path, max_epochs=10)
    running.fit(module, datamodule=data)
    assert float(running.callback_metrics["train_loss"]) < 0.7 * first


def test_logged_metrics_equal_those_of_the_outputs(
    data: ClassificationDataModule, tmp_path: Path
) -> None:
    module, running = classifier(), trainer(tmp_path)
    running.fit(module, datamodule=data)
    for split, evaluate in (("valid", running.validate), ("test", running.test)):
        logged = evaluate(module, datamodule=data, verbose=False)[0]
        outputs = module.outputs
        assert outputs is not None
        assert outputs.split == split
        assert outputs.index.tolist() == list(range(len(data.records(split))))
        assert [data.classes[label] for label in outputs.labels] == [
            record.label for record in data.records(split)
        ]
        is_correct = outputs.logits.argmax(dim=1) == outputs.labels
        assert logged[f"{split}_top1"] == pytest.approx(float(is_correct.float().mean()))
        assert logged[f"{split}_loss"] == pytest.approx(
            float(functional.cross_entropy(outputs.logits, outputs.labels))
        )
        assert logged[f"{split}_top5"] == 1  # of three classes
        accuracies = [
            float(is_correct[outputs.labels == label].float().mean()) for label in range(3)
        ]
        assert module.class_accuracy is not None
        assert module.class_accuracy.tolist() == pytest.approx(accuracies)


def test_validation_runs_in_float32_when_training_in_bfloat16(
    data: ClassificationDataModule, tmp_path: Path
) -> None:
    module = classifier()
    trainer(tmp_path, precision="bf16-mixed").fit(module, datamodule=data)
    assert module.outputs is not None
    images = torch.cat(
        [batch["images"] for batch in data.unaugmented("valid", torch.device("cpu"))]
    )
    with torch.no_grad():
        assert torch.allclose(module.outputs.logits, module.eval()(images), atol=1e-5)


def test_mixed_precision_works_with_clipping_and_a_fused_optimizer(
    data: ClassificationDataModule, tmp_path: Path
) -> None:
    module = classifier()
    trainer(tmp_path, precision="bf16-mixed", gradient_clip_val=1.0, max_epochs=1).fit(
        module, datamodule=data
    )
    assert isinstance(module.optimizers().optimizer, torch.optim.AdamW)  # type: ignore[union-attr]


def test_training_metrics_are_available_to_callbacks_at_epoch_end(
    data: ClassificationDataModule, tmp_path: Path
) -> None:
    recorded: list[set[str]] = []

    class RecordNames(Callback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            recorded.append(set(trainer.callback_metrics))

    trainer(tmp_path, callbacks=[RecordNames()]).fit(classifier(), datamodule=data)
    assert len(recorded) == 2
    assert all({"train_loss", "train_top1", *VALIDATION_METRICS} <= names for names in recorded)


def test_fit_is_reproducible(data: ClassificationDataModule, tmp_path: Path) -> None:
    modules = [classifier(), classifier()]
    for module in modules:
        trainer(tmp_path).fit(module, datamodule=data)
    first, second = (module.state_dict() for module in modules)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_class_weights_of_the_loss_change_predictions(
    data: ClassificationDataModule, tmp_path: Path
) -> None:
    weighted = classifier(loss=nn.CrossEntropyLoss(weight=torch.tensor([1.0, 0.001, 0.001])))
    trainer(tmp_path, max_epochs=15).fit(weighted, datamodule=data)
    trainer(tmp_path).validate(weighted, datamodule=data, verbose=False)
    assert weighted.outputs is not None
    assert (weighted.outputs.logits.argmax(dim=1) == 0).all()


def test_schedule_ends_at_the_last_step(data: ClassificationDataModule, tmp_path: Path) -> None:
    running = trainer(tmp_path, max_epochs=4)
    running.fit(classifier(), datamodule=data)
    assert running.optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-5, rel=0.05)


def test_learning_rate_is_constant_without_a_scheduler(
    data: ClassificationDataModule, tmp_path: Path
) -> None:
    running = trainer(tmp_path)
    running.fit(classifier(scheduler=None), datamodule=data)
    assert running.optimizers[0].param_groups[0]["lr"] == 1e-3


def test_validation_after_an_interrupted_one_starts_empty(
    data: ClassificationDataModule, tmp_path: Path
) -> None:
    class Fail(Callback):
        def on_validation_batch_end(self, *args: Any) -> None:
            raise RuntimeError("during validation")

    module = classifier()
    with pytest.raises(RuntimeError, match="during validation"):
        trainer(tmp_path, callbacks=[Fail()]).validate(module, datamodule=data, verbose=False)
    trainer(tmp_path).validate(module, datamodule=data, verbose=False)
    assert module.outputs is not None
    assert module.outputs.index.tolist() == list(range(12))


def test_batches_without_an_index_are_numbered_in_order(tmp_path: Path) -> None:
    batches = [
        {"images": torch.randn(n, 3, 16, 16), "labels": torch.zeros(n, dtype=torch.int64)}
        for n in (4, 3)
    ]
    module = classifier()
    trainer(tmp_path).validate(
        module, dataloaders=torch.utils.data.DataLoader(batches, batch_size=None), verbose=False
    )
    assert module.outputs is not None
    assert module.outputs.index.tolist() == list(range(7))


def test_schedule_needs_a_number_of_steps(data: ClassificationDataModule, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a schedule needs a number of steps"):
        trainer(tmp_path, max_epochs=-1).fit(classifier(), datamodule=data)


def test_predict_returns_logits_in_order(data: ClassificationDataModule, tmp_path: Path) -> None:
    module, running = classifier(), trainer(tmp_path)
    data.prepare_data()
    data.setup()
    batches: Any = running.predict(module, datamodule=data)
    running.validate(module, datamodule=data, verbose=False)
    assert module.outputs is not None
    assert torch.allclose(torch.cat(batches), module.outputs.logits, atol=1e-6)


class RateRecorder(Callback):
    """Record the learning rate of every step, and save a checkpoint after every epoch."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save(trainer, "validated")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save(trainer, "ended")

    def _save(self, trainer: Trainer, name: str) -> None:
        path = Path(trainer.default_root_dir) / f"{name}_{trainer.current_epoch}.ckpt"
        trainer.save_checkpoint(path)


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        (functools.partial(lr_scheduler.StepLR, step_size=1, gamma=0.5), [1, 0.5, 0.25, 0.125]),
        (functools.partial(lr_scheduler.MultiStepLR, milestones=[2], gamma=0.5), [1, 1, 0.5, 0.5]),
        (functools.partial(lr_scheduler.ExponentialLR, gamma=0.5), [1, 0.5, 0.25, 0.125]),
    ],
    ids=["StepLR", "MultiStepLR", "ExponentialLR"],
)
def test_schedule_per_epoch_keeps_its_rates_after_resuming(
    data: ClassificationDataModule, tmp_path: Path, scheduler: Any, expected: list[float]
) -> None:
    optimizer = functools.partial(torch.optim.SGD, lr=1.0)
    recorder = RateRecorder()
    running = trainer(tmp_path, max_epochs=4, callbacks=[recorder])
    running.fit(classifier(scheduler=scheduler, optimizer=optimizer), datamodule=data)

    steps = len(recorder.rates) // 4
    assert recorder.rates == [rate for rate in expected for _ in range(steps)]
    for name in ("validated_1", "ended_1"):
        resumed = RateRecorder()
        fresh = ClassificationDataModule(data.config, data.preprocessing)
        trainer(tmp_path / name, max_epochs=4, callbacks=[resumed]).fit(
            classifier(scheduler=scheduler, optimizer=optimizer),
            datamodule=fresh,
            ckpt_path=tmp_path / f"{name}.ckpt",
            weights_only=True,
        )
        assert resumed.rates == recorder.rates[2 * steps :]
