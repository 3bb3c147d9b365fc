"""Callbacks of Lightning: supported or refused, monitored metrics, and early ends of training."""

import inspect
from pathlib import Path
from typing import Any

import lightning.pytorch.callbacks
import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping, Timer

from cls_train.builders import build_callbacks, check_nodes, describe_stop
from cls_train.composition.config import RunConfig
from cls_train.composition.targets import REPLACED_CALLBACKS
from cls_train.errors import ConfigError

SUPPORTED_CALLBACKS = {
    "DeviceStatsMonitor",
    "EarlyStopping",
    "LambdaCallback",
    "LearningRateMonitor",
    "ModelSummary",
    "RichModelSummary",
    "RichProgressBar",
    "TQDMProgressBar",
    "Timer",
}
PREFIX = "lightning.pytorch.callbacks."
STOP_EARLY = f"{PREFIX}EarlyStopping"


@pytest.fixture
def config(composed: Any, data_root: Path) -> RunConfig:
    result: RunConfig = composed("data=jsonl", f"data.root={data_root}", "callbacks=none")
    return result


def with_callbacks(config: RunConfig, *nodes: dict[str, Any], **trainer: Any) -> RunConfig:
    callbacks = dict(config.callbacks)
    for index, node in enumerate(nodes):
        callbacks[f"own{index}"] = node
    return config.model_copy(
        update={"callbacks": callbacks, "trainer": {**config.trainer, **trainer}}
    )


def test_every_callback_of_lightning_is_supported_or_refused() -> None:
    names = set(lightning.pytorch.callbacks.__all__)
    assert names == SUPPORTED_CALLBACKS | REPLACED_CALLBACKS.keys()


@pytest.mark.parametrize("name", REPLACED_CALLBACKS)
def test_refused_callback_is_named_with_a_reason(config: RunConfig, name: str) -> None:
    module = inspect.getmodule(getattr(lightning.pytorch.callbacks, name))
    assert module is not None
    for target in (f"{PREFIX}{name}", f"{module.__name__}.{name}"):
        node = {"_target_": target}
        with pytest.raises(ConfigError, match=f"Lightning's {name} is not allowed"):
            check_nodes(with_callbacks(config, node))


@pytest.mark.parametrize(
    ("arguments", "trainer", "expected"),
    [
        (
            {"monitor": "val_acc"},
            {},
            "callbacks.own0.monitor: 'val_acc' is not logged; ",
        ),
        ({"monitor": "valid_topp1"}, {}, "did you mean 'valid_top1'"),
        ({"monitor": ""}, {}, "callbacks.own0.monitor: '' is not logged"),
        ({"monitor": None}, {}, "callbacks.own0.monitor: expected the name of a metric, got None"),
        (
            {"monitor": "valid_top1"},
            {},
            "callbacks.own0.mode: 'min' would select the worst valid_top1",
        ),
        ({"monitor": "valid_macro_f1"}, {}, "set callbacks.own0.mode=max"),
        ({"monitor": "valid_loss", "mode": "max"}, {}, "set callbacks.own0.mode=min"),
        ({"monitor": "valid_loss", "mode": "lowest"}, {}, "callbacks.own0: `mode` can be min, max"),
        (
            {"monitor": "train_loss"},
            {"val_check_interval": 0.5},
            "set callbacks.own0.check_on_train_epoch_end=true",
        ),
        (
            {"monitor": "valid_loss", "check_on_train_epoch_end": True},
            {"check_val_every_n_epoch": 2},
            "set callbacks.own0.check_on_train_epoch_end=false",
        ),
    ],
    ids=str,
)
def test_early_stopping_that_would_fail_or_stop_wrongly_is_refused(
    config: RunConfig, arguments: dict[str, Any], trainer: dict[str, Any], expected: str
) -> None:
    node = {"_target_": STOP_EARLY, **arguments}
    with pytest.raises(ConfigError) as raised:
        build_callbacks(with_callbacks(config, node, **trainer))
    assert expected in str(raised.value)


def test_best_and_last_checkpoint_gets_the_same_checks(config: RunConfig) -> None:
    node = {**(config.callbacks["best_and_last"] or {}), "monitor": "valid_loss"}
    changed = config.model_copy(update={"callbacks": {"best_and_last": node}})
    with pytest.raises(ConfigError, match=r"callbacks\.best_and_last\.mode: 'max' would select"):
        build_callbacks(changed)


@pytest.mark.parametrize("name", ["DeviceStatsMonitor", "LearningRateMonitor"])
def test_callback_that_needs_a_logger_is_refused_without_one(config: RunConfig, name: str) -> None:
    changed = with_callbacks(config, {"_target_": f"{PREFIX}{name}"})
    with pytest.raises(ConfigError, match=r"callbacks\.own0: .* needs a logger"):
        build_callbacks(changed.model_copy(update={"logger": {}}))


def test_two_progress_bars_are_refused(config: RunConfig) -> None:
    bars = [
        {"_target_": "cls_callbacks.EpochProgressBar"},
        {"_target_": f"{PREFIX}RichProgressBar"},
    ]
    with pytest.raises(ConfigError, match=r"callbacks\.own0 and callbacks\.own1 are both progress"):
        build_callbacks(with_callbacks(config, *bars))
    with pytest.raises(ConfigError, match=r"trainer\.enable_progress_bar: false, but callbacks\."):
        build_callbacks(with_callbacks(config, bars[0], enable_progress_bar=False))


SETTINGS = [
    "data.batch_size=2",
    "preprocessing.size=[24,24]",
    "augmentation=none",
    "callbacks=none",
    "logger=csv",
    "model=torchvision",
    "model.name=mobilenet_v3_small",
    "stages.evaluate=false",
]


def test_early_end_is_in_the_log_the_table_and_the_summary(
    run_app: Any, data_root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    early_stopping = f"{{_target_: {STOP_EARLY}, monitor: valid_top1, mode: max, patience: 1, " + (
        "min_delta: 2}"
    )
    code, message = run_app(
        "data=jsonl",
        f"data.root={data_root}",
        *SETTINGS,
        "trainer.max_epochs=5",
        "run.name=one",
        f"callbacks.early_stopping={early_stopping}",
    )
    assert code == 0, message
    line = "stopped after epoch 2 of 5 by EarlyStopping"
    assert f"training {line}" in message
    run = data_root.parent / "runs/one"
    assert line in (run / "summary.json").read_text()
    assert f"training {line}" in (run / "train.log").read_text()


def test_table_without_evaluation_shows_the_monitored_score(
    run_app: Any, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import cls_train.run

    tables = []
    monkeypatch.setattr(cls_train.run, "print_summary", tables.append)
    code, message = run_app(
        "data=jsonl", f"data.root={data_root}", *SETTINGS, "trainer.max_epochs=1"
    )
    assert code == 0, message
    (rows,) = tables
    assert 0 <= float(rows["best valid_top1"]) <= 1
    assert "training" not in rows


def test_complete_training_has_no_early_end() -> None:
    trainer = Trainer(accelerator="cpu", max_epochs=3, logger=False, enable_progress_bar=False)
    assert describe_stop(trainer) is None


@pytest.mark.parametrize(
    ("max_time", "expected"),
    [("00:00:00:01", "by trainer.max_time=00:00:00:01"), (None, "by Timer")],
)
def test_timer_that_was_used_up_before_a_resume_is_named(
    max_time: str | None, expected: str
) -> None:
    timer = Timer("00:00:00:01")
    timer.load_state_dict({"time_elapsed": {"train": 2.0}})
    stopping = EarlyStopping("valid_loss")
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=3,
        logger=False,
        callbacks=[stopping, timer],
        enable_checkpointing=False,
    )
    trainer.should_stop = True
    description = describe_stop(trainer, max_time)
    assert description is not None
    assert description.startswith("stopped before the first step")
    assert description.endswith(expected)
