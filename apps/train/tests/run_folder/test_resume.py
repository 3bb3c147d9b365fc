from pathlib import Path
from typing import Any

import pytest

from cls_export import LabelsMapping
from cls_export.contract.run_layout import RunPaths
from cls_train.composition.config import RunConfig
from cls_train.errors import RunError
from cls_train.run_folder.resume import (
    adopt_resolved_values,
    begin_run,
    continue_after_training,
    find_recorded_config,
)
from cls_train.run_folder.run_paths import choose_run_paths, read_config, write_json
from cls_train.run_folder.state import RunState, check_startable


@pytest.fixture
def compose_again(composed: Any, tmp_path: Path) -> Any:
    """Compose the configuration of the same run with other settings."""

    def compose(*overrides: str) -> RunConfig:
        result: RunConfig = composed(f"run.root={tmp_path}", "run.name=one", *overrides)
        return result

    return compose


def test_begin_run_writes_configuration_and_labels(config: RunConfig, make_labels: Any) -> None:
    run = choose_run_paths(config)
    begin_run(run, config, make_labels("1", "2"))
    assert read_config(run) == config
    assert LabelsMapping.load(run.labels).classes == ("1", "2")
    assert not run.summary.exists()


def test_begin_run_returns_last_checkpoint_of_an_interrupted_run(
    config: RunConfig, make_labels: Any, interrupted_run: RunPaths
) -> None:
    check_startable(interrupted_run)
    labels = make_labels("1", "2")
    assert begin_run(interrupted_run, config, labels) == interrupted_run.last


def test_find_recorded_config_returns_none_before_the_first_checkpoint(
    config: RunConfig, make_labels: Any
) -> None:
    run = choose_run_paths(config)
    assert find_recorded_config(run, config) is None, "the run does not exist yet"
    begin_run(run, config, make_labels("1", "2"))
    assert find_recorded_config(run, config) is None


def test_find_recorded_config_accepts_auto_for_values_that_the_run_has_resolved(
    make_labels: Any, compose_again: Any
) -> None:
    numbers = {"size": [48, 32], "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    command = compose_again("preprocessing=auto", "model.weights=w.pth")
    recorded = command.model_copy(
        update={
            "model": {**command.model, "stem": "small"},
            "preprocessing": {**command.preprocessing, **numbers},
        }
    )
    run = choose_run_paths(recorded)
    begin_run(run, recorded, make_labels("1", "2"))
    run.checkpoints.mkdir()
    run.last.write_bytes(b"")
    assert find_recorded_config(run, command) == recorded
    assert adopt_resolved_values(command, recorded) == recorded

    for other in ("+model.stem=standard", "model.weights=v.pth", "preprocessing.size=[40,40]"):
        changed = compose_again("preprocessing=auto", "model.weights=w.pth", other)
        with pytest.raises(RunError, match="cannot go on with other settings"):
            find_recorded_config(run, changed)


def test_begin_run_accepts_other_stages_when_resuming(
    make_labels: Any, interrupted_run: RunPaths, compose_again: Any
) -> None:
    without_export = compose_again("stages.export=false")
    labels = make_labels("1", "2")
    assert begin_run(interrupted_run, without_export, labels) == interrupted_run.last
    assert not read_config(interrupted_run).stages.export


def test_begin_run_lists_changed_settings_when_refusing_to_resume(
    make_labels: Any, interrupted_run: RunPaths, compose_again: Any
) -> None:
    changed = compose_again("optimizer.lr=0.5", "seed=9", "run.root=elsewhere")
    with pytest.raises(RunError) as caught:
        begin_run(interrupted_run, changed, make_labels("1", "2"))
    lines = str(caught.value).splitlines()
    assert [line.strip() for line in lines[1:-1]] == [
        "seed: 1 → 9",
        "data.seed: 1 → 9",
        "optimizer.lr: 0.001 → 0.5",
    ]


def test_begin_run_takes_the_data_path_of_the_new_command(
    make_labels: Any, interrupted_run: RunPaths, compose_again: Any
) -> None:
    """A14: the evaluation process reads config.yaml, so it must hold the path that exists now."""
    moved = compose_again("data.root=/elsewhere", "+data.num_workers=2", "logger=csv")
    labels = make_labels("1", "2")
    assert begin_run(interrupted_run, moved, labels) == interrupted_run.last
    assert read_config(interrupted_run) == moved


def test_begin_run_starts_again_in_a_folder_without_a_checkpoint(
    config: RunConfig, make_labels: Any, compose_again: Any
) -> None:
    run = choose_run_paths(config)
    begin_run(run, config, make_labels("1", "2"))
    run.checkpoints.mkdir()
    run.best.write_bytes(b"of the first attempt")
    run.metrics.write_text("of the first attempt")
    other = compose_again("optimizer.lr=0.5")
    assert begin_run(run, other, make_labels("1", "3")) is None
    assert not run.best.exists()
    assert not run.metrics.exists()
    assert read_config(run) == other
    assert LabelsMapping.load(run.labels).classes == ("1", "3")


def test_begin_run_refuses_a_run_that_another_process_has_finished_meanwhile(
    config: RunConfig, make_labels: Any, interrupted_run: RunPaths
) -> None:
    write_json(interrupted_run.summary, {})
    with pytest.raises(RunError, match="'one' is finished"):
        begin_run(interrupted_run, config, make_labels("1", "2"))


@pytest.mark.parametrize(
    ("override", "state"),
    [
        ("stages.report=false", RunState.EVALUATED),
        ("logger=csv", RunState.EVALUATED),
        ("stages.calibrate=null", RunState.TRAINED),
        ("data.root=/elsewhere", RunState.TRAINED),
    ],
)
def test_a_trained_run_is_evaluated_again_only_if_the_evaluation_would_differ(
    interrupted_run: RunPaths, compose_again: Any, override: str, state: RunState
) -> None:
    write_json(interrupted_run.fit, {})
    write_json(interrupted_run.evaluation, {})
    config = compose_again(override)
    assert continue_after_training(interrupted_run, config) == (config, state)
    assert read_config(interrupted_run) == config


def test_a_trained_run_refuses_settings_that_change_the_weights(
    interrupted_run: RunPaths, compose_again: Any
) -> None:
    write_json(interrupted_run.fit, {})
    with pytest.raises(RunError, match=r"optimizer.lr: 0.001 → 0.5"):
        continue_after_training(interrupted_run, compose_again("optimizer.lr=0.5"))


def test_begin_run_refuses_other_classes_and_other_data(
    config: RunConfig, make_labels: Any, interrupted_run: RunPaths
) -> None:
    with pytest.raises(RunError, match=r"classes: removed \['2'\], added \['3'\]"):
        begin_run(interrupted_run, config, make_labels("1", "3"))
    with pytest.raises(RunError, match="rows or images have changed"):
        begin_run(interrupted_run, config, make_labels("1", "2", fingerprint="b"))


def test_begin_run_refuses_a_folder_that_another_unnamed_run_created(
    composed: Any, tmp_path: Path, make_labels: Any
) -> None:
    config = composed(f"run.root={tmp_path}")
    run = choose_run_paths(config)
    labels = make_labels("1", "2")
    begin_run(run, config, labels)
    with pytest.raises(RunError, match="created by another run in the same second"):
        begin_run(run, config, labels)
