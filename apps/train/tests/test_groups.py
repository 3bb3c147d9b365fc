"""Compose, check, and build every choice of every config group."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cls_data import ClassificationDataModule, DataModuleConfig, GateConfig
from cls_export import Preprocessing
from cls_models import build_optimizer
from cls_train.builders import (
    build_callbacks,
    build_data,
    build_module,
    build_preprocessing,
    build_trainer,
    check_nodes,
)
from cls_train.builders.loggers import LOGGER_EXTRAS
from cls_train.composition.config import RunConfig
from cls_train.composition.resolve_preprocessing import resolve_preprocessing
from cls_train.errors import ConfigError

CONF = Path(__file__).resolve().parents[3] / "conf"
CHOICES = sorted(
    (group.name, choice.stem)
    for group in CONF.iterdir()
    if group.is_dir() and group.name != "launch"  # of apps/launch
    for choice in group.glob("*.yaml")
)


NEEDED = {
    ("model", "torchvision"): ["model.name=mobilenet_v3_small"],
    ("preprocessing", "pretrained"): ["model.weights={weights}"],
    ("logger", "mlflow"): ["run.root={folder}"],  # where its database is created
    ("experiment", "jersey_numbers_pretrained"): ["model.weights={weights}"],
    ("experiment", "photos_small"): ["model.weights={weights}"],
    ("transfer", "linear_probe"): ["augmentation=none", "transfer.cache_features=true"],
}
"""Settings that a choice needs besides its own."""

ELSEWHERE = {
    (
        "distillation",
        "checkpoint",
    ): "needs a finished run: tests/test_transfer_between_runs.py",
    ("model", "timm"): "needs the extra: see the two tests below",
}


def compose_choice(
    composed: Callable[..., RunConfig], group: str, choice: str, data_root: Path, weights: Path
) -> RunConfig:
    overrides = [
        f"{group}={choice}",
        *(
            text.format(weights=weights, folder=weights.parent)
            for text in NEEDED.get((group, choice), [])
        ),
    ]
    if (group, choice) == ("gate", "strict"):
        overrides.append("data.gate.rare_class_under=1")  # the data set is small
    if choice == "synthetic_tiny":
        return composed(*overrides, f"data.root={data_root.parent / 'rendered'}")
    if (group, choice) != ("data", "synthetic"):
        overrides += ["data=jsonl"] if group != "experiment" else []
        overrides += [f"data.root={data_root}"]
    return composed(*overrides)


def test_config_groups_match_the_expected_list() -> None:
    assert {group for group, _ in CHOICES} == {
        "augmentation",
        "callbacks",
        "data",
        "debug",
        "distillation",
        "experiment",
        "gate",
        "logger",
        "loss",
        "mixing",
        "model",
        "optimizer",
        "preprocessing",
        "scheduler",
        "trainer",
        "transfer",
    }


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_composes_and_builds(
    composed: Any, data_root: Path, weights_file: Path, tmp_path: Path, group: str, choice: str
) -> None:
    if reason := ELSEWHERE.get((group, choice)):
        pytest.skip(reason)
    config = compose_choice(composed, group, choice, data_root, weights_file)
    check_nodes(config)
    config = resolve_preprocessing(config)
    preprocessing = build_preprocessing(config)
    assert isinstance(preprocessing, Preprocessing)
    data = build_data(config, preprocessing)
    if (group, choice) == ("data", "synthetic"):
        assert isinstance(data.config, DataModuleConfig)
        assert data.config.synthetic is not None
        return
    build_everything(config, data, tmp_path)


def build_everything(config: RunConfig, data: ClassificationDataModule, folder: Path) -> None:
    data.prepare_data()
    data.setup()
    module = build_module(config, data)
    images = torch.zeros(2, 3, *data.preprocessing.size)
    assert module.eval()(images).shape == (2, len(data.classes))
    callbacks = build_callbacks(config).all
    loggers = [str(node["_target_"]).rpartition(".")[2] for node in config.logger.values() if node]
    needed = next((LOGGER_EXTRAS[name] for name in loggers if name in LOGGER_EXTRAS), None)
    if config.trainer["accelerator"] == "gpu" and not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="trainer"):
            build_trainer(config, folder, callbacks)
    elif needed and importlib.util.find_spec(needed) is None:
        with pytest.raises(ConfigError, match=f"uv run --extra {needed} apps/train"):
            build_trainer(config, folder, callbacks)
    else:
        trainer = build_trainer(config, folder, callbacks)
        optimizer = build_optimizer(module._optimizer, module.backbone, module.transfer)
        assert trainer.max_epochs == config.trainer["max_epochs"]
        assert optimizer.param_groups[0]["lr"] > 0


def test_a_timm_network_builds_when_timm_is_installed(
    composed: Any, data_root: Path, tmp_path: Path
) -> None:
    pytest.importorskip("timm")
    config = composed("model=timm", "model.name=resnet10t", "data=jsonl", f"data.root={data_root}")
    check_nodes(config)
    build_everything(config, build_data(config, build_preprocessing(config)), tmp_path)


def test_a_timm_network_reports_the_install_command_without_timm(
    run_app: Any, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)  # makes the import fail
    for more in ([], ["model.weights=DEFAULT", "preprocessing=pretrained"]):
        settings = [
            "model=timm",
            "model.name=resnet10t",
            "data=jsonl",
            f"data.root={data_root}",
            *more,
        ]
        code, message = run_app(*settings)
        assert code == 2
        assert "model: timm is missing" in message
        assert "Traceback" not in message


def test_every_experiment_header_has_its_command() -> None:
    for path in (CONF / "experiment").glob("*.yaml"):
        assert "uv run apps/train experiment=" in path.read_text()


def test_the_gate_file_equals_the_defaults_of_the_code(composed: Any, data_root: Path) -> None:
    config = composed("data=jsonl", f"data.root={data_root}", "gate=default")
    assert config.data["gate"] == GateConfig().model_dump()


def test_folds_are_set_without_a_plus(composed: Any) -> None:
    for data in ("jsonl", "folder", "synthetic", "synthetic_tiny"):
        config = composed(f"data={data}", "data.root=x", "data.folds=5", "data.fold=2")
        assert (config.data["fold"], config.data["folds"]) == (2, 5)
