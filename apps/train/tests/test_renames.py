"""Names of version 0.1: an error in new settings, translated in recorded ones."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from cls_export.contract.run_layout import RunPaths
from cls_train.builders import check_nodes
from cls_train.composition.instantiate import check_node
from cls_train.composition.renames import RENAMED_KEYS, RENAMED_TARGETS, upgrade_settings
from cls_train.composition.targets import find_target
from cls_train.errors import ConfigError
from cls_train.run_folder.run_paths import read_config

GOLDEN_CONFIG = Path(__file__).parent / "golden/config_v0_1.yaml"


def test_a_config_of_version_0_1_is_read_with_the_new_names(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(GOLDEN_CONFIG.read_text())
    config = read_config(RunPaths(tmp_path))
    check_nodes(config)
    assert config.stages.robustness
    assert config.augmentation is not None
    assert config.augmentation["color"] == {"brightness": 0.15, "gray": 0.1}
    checkpoint = config.callbacks["best_and_last"]
    assert checkpoint is not None
    assert checkpoint["_target_"] == "cls_callbacks.BestAndLastCheckpoint"
    assert checkpoint["on_save_error"] == "continue"
    assert list(config.callbacks)[:3] == ["best_and_last", "preemption", "ema"]


def test_a_run_of_version_0_1_can_be_resumed_with_the_same_settings(composed: Any) -> None:
    recorded = upgrade_settings(yaml.safe_load(GOLDEN_CONFIG.read_text()))
    config = composed(
        "debug=tiny",
        "data=synthetic_tiny",
        "data.synthetic.train=24",
        "data.synthetic.valid=12",
        "data.synthetic.test=12",
        "data.root=/data/tiny",
        "logger=csv",
        "trainer.max_epochs=3",
        "mixing=both",
        "model.dropout=0.2",
        "model.stem=standard",
        "augmentation.geometry.rotation=12",
        "augmentation.color.brightness=0.15",
        "augmentation.color.gray=0.1",
        "callbacks.best_and_last.on_save_error=continue",
    )
    settings = config.model_dump(mode="json")
    for section in ("data", "preprocessing", "augmentation", "mixing", "model", "callbacks"):
        assert list(settings[section]) == list(recorded[section])
        for key, value in recorded[section].items():
            if key == "gate":  # later versions have more rules
                value = {**settings[section][key], **value}
            assert settings[section][key] == value


def test_a_recorded_parameter_that_a_setting_elsewhere_replaces_is_dropped() -> None:
    target = "cls_callbacks.BestAndLastCheckpoint"
    node = {"_target_": target, "copy_to": "gs://b", "mode": "min"}
    settings = {"callbacks": {"best_and_last": node}}
    upgraded = {"callbacks": {"best_and_last": {"_target_": target, "mode": "min"}}}
    assert upgrade_settings(settings) == upgraded


def test_upgrading_twice_changes_nothing() -> None:
    once = upgrade_settings(yaml.safe_load(GOLDEN_CONFIG.read_text()))
    assert upgrade_settings(once) == once


@pytest.mark.parametrize("new_name", sorted(set(RENAMED_TARGETS.values())))
def test_every_renamed_target_exists(new_name: str) -> None:
    find_target(new_name, "target")


def test_every_renamed_callback_exists(composed: Any) -> None:
    callbacks = composed().callbacks
    for new_path in RENAMED_KEYS.values():
        group, _, name = new_path.partition(".")
        assert group != "callbacks" or name in callbacks


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("callbacks.signals=null", "callbacks.signals was renamed to callbacks.preemption"),
        (
            "callbacks.early_warnings._target_=cls_callbacks.EarlyWarnings",
            "cls_callbacks.EarlyWarnings was renamed to cls_callbacks.TrainingWarnings",
        ),
        ("stages.degrade=true", "stages.degrade was renamed to stages.robustness"),
        (
            "augmentation.colour.brightness=0.1",
            "augmentation.colour was renamed to augmentation.color",
        ),
        (
            "augmentation.color.grey=0.1",
            "augmentation.color.grey was renamed to augmentation.color.gray",
        ),
        ("augmentation.colour.brightness=0.1", "augmentation.colour was renamed to"),
        (
            "callbacks.best_and_last.when_saving_fails=stop",
            "when_saving_fails was renamed to callbacks.best_and_last.on_save_error",
        ),
        (
            "+callbacks.best_and_last.copy_to=gs://b",
            "callbacks.best_and_last.copy_to was replaced by run.remote; see docs/runs.md",
        ),
        (
            "callbacks.best_and_last.on_save_error=go_on",
            "callbacks.best_and_last.on_save_error: 'go_on' was renamed to 'continue'",
        ),
    ],
)
def test_an_old_name_on_the_command_line_is_reported_with_the_new_one(
    run_app: Any, data_root: Path, override: str, expected: str
) -> None:
    code, message = run_app("data=jsonl", f"data.root={data_root}", override)
    assert code == 2
    assert expected in message
    assert not (data_root.parent / "runs").exists()


def test_an_old_target_in_yaml_is_reported_with_the_new_one() -> None:
    with pytest.raises(ConfigError, match=r"cls_data.Mixing was renamed to cls_data.MixupCutmix"):
        check_node({"_target_": "cls_data.Mixing"}, "mixing")
