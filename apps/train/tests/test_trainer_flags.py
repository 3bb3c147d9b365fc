"""Every argument of Lightning's Trainer ends in a run, or in one message that names it."""

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lightning.pytorch import Trainer

from cls_train.builders import (
    build_callbacks,
    build_data,
    build_module,
    build_preprocessing,
    build_trainer,
    check_nodes,
)
from cls_train.composition.config import RunConfig
from cls_train.composition.trainer_flags import REFUSED, SUPPORTED, check_trainer_flags
from cls_train.errors import ConfigError

Settings = dict[str, Any]
WRONG_TYPES = ["many", "", True, -7, 0.3, 1.5, float("nan"), float("inf"), [], [1, 2], {}, {"a": 1}]
SET_BY_THE_APP = {"logger", "callbacks", "default_root_dir"}


@pytest.fixture
def small_config(composed: Any, data_root: Path) -> RunConfig:
    """Six images, three training batches, and two validation batches of one image."""
    config: RunConfig = composed(
        "data=jsonl",
        f"data.root={data_root}",
        "data.batch_size=2",
        "data.eval_batch_size=1",
        "preprocessing.size=[24,24]",
        "model=torchvision",
        "model.name=mobilenet_v3_small",
        "augmentation=none",
        "callbacks=none",
        "logger=csv",
        "trainer.max_epochs=1",
        "trainer.enable_progress_bar=false",
    )
    return config


Train = Callable[..., Trainer]


@pytest.fixture
def train(small_config: RunConfig, tmp_path: Path) -> Train:
    """Check, build, and fit the small configuration with some of the trainer's arguments."""

    def check_and_fit(**flags: Any) -> Trainer:
        node = {**small_config.trainer, **flags}
        config = small_config.model_copy(update={"trainer": node})
        check_nodes(config)
        callbacks = build_callbacks(config)
        data = build_data(config, build_preprocessing(config))
        trainer = build_trainer(config, tmp_path / "run", callbacks.all)
        data.prepare_data()
        data.setup()
        module = build_module(config, data)
        assert not (tmp_path / "run").exists()
        trainer.fit(module, datamodule=data)
        return trainer

    return check_and_fit


def test_every_argument_of_the_trainer_is_supported_or_refused() -> None:
    arguments = set(inspect.signature(Trainer.__init__).parameters) - {"self"}
    assert arguments == SUPPORTED.keys() | REFUSED.keys()
    assert not SUPPORTED.keys() & REFUSED.keys()


@pytest.mark.parametrize("key", [*SUPPORTED, *REFUSED])
def test_value_of_a_wrong_kind_gives_one_message_with_the_key(key: str) -> None:
    messages = []
    for value in WRONG_TYPES:
        try:
            check_trainer_flags({"max_epochs": 1, key: value})
        except ConfigError as error:
            messages.append(str(error))
    assert len(messages) >= 5
    assert all(message.startswith(f"trainer.{key}: ") for message in messages)
    assert not any("\n" in message for message in messages)


@pytest.mark.parametrize("key", sorted(REFUSED.keys() - SET_BY_THE_APP))
def test_default_of_a_refused_argument_is_accepted(key: str) -> None:
    default = inspect.signature(Trainer.__init__).parameters[key].default
    check_trainer_flags({"max_epochs": 1, key: default})


LEGAL: list[Settings] = [
    {"accelerator": "auto"},
    {"devices": "1"},
    {"devices": "auto"},
    {"precision": 32},
    {"precision": None},
    {"precision": "auto"},
    {"min_epochs": 1},
    {"min_steps": 100},
    {"max_time": "00:00:01:00"},
    {"max_time": {"hours": 1}},
    {"limit_train_batches": 1},
    {"limit_train_batches": 0.5},
    {"limit_train_batches": 100},
    {"limit_val_batches": 1},
    {"limit_val_batches": 0.5},
    {"val_check_interval": 1},
    {"val_check_interval": 3},
    {"val_check_interval": 0.1},
    {"val_check_interval": None},
    {"check_val_every_n_epoch": 2, "max_epochs": 2},
    {"num_sanity_val_steps": -1},
    {"num_sanity_val_steps": None},
    {"log_every_n_steps": 0},
    {"log_every_n_steps": None},
    {"enable_model_summary": True},
    {"accumulate_grad_batches": 2},
    {"accumulate_grad_batches": 50},
    {"gradient_clip_val": 0.5, "gradient_clip_algorithm": "value"},
    {"gradient_clip_val": 0},
    {"gradient_clip_algorithm": "norm"},
    {"deterministic": True},
    {"deterministic": "warn"},
    {"benchmark": False},
    {"inference_mode": False},
    {"use_distributed_sampler": True},
    {"profiler": "simple"},
    {"profiler": "advanced"},
    {"profiler": {"_target_": "lightning.pytorch.profilers.SimpleProfiler"}},
    {"detect_anomaly": True},
    {"enable_autolog_hparams": False},
]
QUICK = ({"limit_val_batches": 0.5}, {"val_check_interval": 0.1}, {"profiler": "simple"})


def marked(settings: Settings) -> Any:
    marks = [] if settings in QUICK else [pytest.mark.slow]
    return pytest.param(settings, id=str(settings), marks=marks)


@pytest.mark.parametrize("settings", [marked(each) for each in LEGAL])
def test_legal_value_ends_in_a_run_with_a_best_checkpoint(
    train: Train, settings: Settings, tmp_path: Path
) -> None:
    trainer = train(**settings)
    assert trainer.global_step > 0
    assert (tmp_path / "run/checkpoints/best.ckpt").is_file()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"val_check_interval": 1000}, "trainer.val_check_interval: no validation would run"),
        ({"val_check_interval": 4}, "at most 3, the training batches of an epoch, got 4"),
        (
            {"val_check_interval": 3, "limit_train_batches": 2},
            "at most 2, the training batches of an epoch, got 3",
        ),
        ({"val_check_interval": "00:00:01:00"}, "trainer.val_check_interval: expected a number"),
        ({"limit_val_batches": 0.1}, "trainer.limit_val_batches: 0.1 of 2 batches is less than"),
        ({"limit_train_batches": 0.3}, "trainer.limit_train_batches: 0.3 of 3 batches is less"),
        ({"limit_val_batches": 0}, "trainer.limit_val_batches: expected a number of batches"),
        ({"overfit_batches": 1}, "trainer.overfit_batches: it replaces the sampler"),
        ({"fast_dev_run": True}, "trainer.fast_dev_run: it turns off the checkpoints"),
        ({"barebones": True}, "trainer.barebones: it turns off the checkpoints"),
        ({"max_time": "00:00:00:00"}, "trainer.max_time: expected a time above 0"),
        ({"max_time": "soon"}, "trainer.max_time: expected a time above 0"),
        ({"max_time": {"fortnights": 1}}, "trainer.max_time: expected a time above 0"),
        ({"check_val_every_n_epoch": 2}, "trainer.check_val_every_n_epoch: no validation would"),
        ({"check_val_every_n_epoch": None}, "trainer.check_val_every_n_epoch: expected an"),
        ({"min_epochs": 2}, "trainer.min_epochs: expected at most trainer.max_epochs=1, got 2"),
        ({"accelerator": "tpus"}, "trainer.accelerator: expected auto or cpu or gpu"),
        ({"devices": [3]}, "trainer.devices: "),
        ({"devices": [0, 0]}, "trainer.devices: expected a number of devices"),
        ({"devices": 0}, "trainer.devices: expected a number of devices"),
        ({"strategy": "fsdp"}, "trainer.strategy: 'fsdp' splits weights that are too large"),
        ({"strategy": "ddp_spawn"}, "trainer.strategy: expected auto or ddp"),
        ({"sync_batchnorm": True}, "trainer.sync_batchnorm: PyTorch synchronizes"),
        ({"num_nodes": 0}, "trainer.num_nodes: expected an integer of at least 1"),
        ({"precision": "8-bit"}, "trainer.precision: expected auto or 32-true or 16-mixed"),
        ({"plugins": []}, "trainer.plugins: expected one cls_callbacks.AtomicCheckpointIO"),
        ({"plugins": None}, "trainer.plugins: expected one cls_callbacks.AtomicCheckpointIO"),
        ({"profiler": "xla"}, "trainer.profiler: expected simple, advanced, pytorch"),
        ({"limit_test_batches": 2}, "trainer.limit_test_batches: the final evaluation uses every"),
        ({"logger": False}, "trainer.logger: the app sets this argument"),
        ({"max_epochs": None}, "trainer.max_epochs: expected an integer of at least 1, got None"),
    ],
    ids=str,
)
def test_illegal_value_is_reported_before_the_run_folder_exists(
    train: Train, settings: Settings, expected: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as raised:
        train(**settings)
    assert expected in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_plugin_that_sets_the_precision_is_refused(train: Train) -> None:
    plugins = [
        {"_target_": "cls_callbacks.AtomicCheckpointIO"},
        {"_target_": "lightning.pytorch.plugins.DoublePrecision"},
    ]
    with pytest.raises(ConfigError, match=r"trainer\.plugins: .* set trainer\.precision"):
        train(plugins=plugins)


def test_defaults_from_the_environment_are_refused(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PL_TRAINER_FAST_DEV_RUN", "1")
    with pytest.raises(ConfigError, match=r"unset it, and set trainer\.fast_dev_run"):
        train()


@pytest.fixture
def srun_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin/srun"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    for name in ("SLURM_NTASKS", "SLURM_JOB_NAME"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("srun_on_path")
def test_srun_on_the_path_gives_no_warning(
    small_config: RunConfig, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    trainer = build_trainer(small_config, tmp_path / "run", [])
    assert type(trainer._accelerator_connector.cluster_environment).__name__ == (
        "LightningEnvironment"
    )
    messages = [str(each.message) for each in recwarn]
    assert not [message for message in messages if "srun" in message]


@pytest.mark.usefixtures("srun_on_path")
def test_slurm_job_is_still_detected(
    small_config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "1")
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "1")
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_LOCALID", "0")
    monkeypatch.setenv("SLURM_NODEID", "0")
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    trainer = build_trainer(small_config, tmp_path / "run", [])
    assert type(trainer._accelerator_connector.cluster_environment).__name__ == "SLURMEnvironment"


def as_text(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        items = [f"{key}: {item}" for key, item in value.items()]
        return f"{{{', '.join(items)}}}"
    return str(value)


@pytest.mark.parametrize("settings", LEGAL, ids=str)
def test_legal_value_is_accepted_on_the_command_line(composed: Any, settings: Settings) -> None:
    overrides = [f"trainer.{key}={as_text(value)}" for key, value in settings.items()]
    config = composed(*overrides)
    assert {key: str(config.trainer[key]) for key in settings} == {
        key: str(value) for key, value in settings.items()
    }


@pytest.mark.slow
def test_final_evaluation_uses_every_row_despite_limits_of_batches(
    run_app: Any, data_root: Path
) -> None:
    code, message = run_app(
        "data=jsonl",
        f"data.root={data_root}",
        "data.eval_batch_size=1",
        "preprocessing.size=[24,24]",
        "callbacks=none",
        "trainer.max_epochs=1",
        "trainer.limit_train_batches=1",
        "trainer.limit_val_batches=1",
        "run.name=one",
        "stages.export=false",
        "stages.report=false",
    )
    assert code == 0, message
    evaluation = json.loads((data_root.parent / "runs/one/evaluation.json").read_text())
    assert evaluation["metrics"]["valid"]["valid_top1"] in (0, 0.5, 1)
    predictions = np.load(data_root.parent / "runs/one/predictions/valid.npz", allow_pickle=False)
    assert len(predictions["logits"]) == 2
