from pathlib import Path
from typing import Any

import pytest

from cls_export import LabelsMapping
from cls_export.contract.run_layout import RunPaths
from cls_train.composition.config import RunConfig
from cls_train.errors import RunError
from cls_train.run_folder.resume import begin_run, check_startable, find_interrupted_config
from cls_train.run_folder.run_paths import choose_run_paths, read_config, write_json


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


def test_find_interrupted_config_returns_none_for_another_model(
    make_labels: Any, compose_again: Any
) -> None:
    recorded = compose_again("model.weights=w.pth", "+model.stem=small")
    run = choose_run_paths(recorded)
    assert find_interrupted_config(run, recorded) is None, "the run does not exist yet"
    begin_run(run, recorded, make_labels("1", "2"))
    run.checkpoints.mkdir()
    run.last.write_bytes(b"")
    for same_model in (
        ["model.weights=w.pth"],
        ["model.weights=w.pth", "+model.stem=small"],
    ):
        assert find_interrupted_config(run, compose_again(*same_model)) == recorded
    for other_model in (
        ["model.weights=w.pth", "+model.stem=standard"],
        ["model.weights=v.pth"],
        ["model=resnet34"],
    ):
        assert find_interrupted_config(run, compose_again(*other_model)) is None


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
    changed = compose_again("optimizer.lr=0.5")
    expected = r"cannot be resumed with other settings(.|\n)*-   lr: 0.001(.|\n)*\+   lr: 0.5"
    with pytest.raises(RunError, match=expected):
        begin_run(interrupted_run, changed, make_labels("1", "2"))


def test_begin_run_refuses_other_classes_and_other_data(
    config: RunConfig, make_labels: Any, interrupted_run: RunPaths
) -> None:
    with pytest.raises(RunError, match=r"classes: removed \['2'\], added \['3'\]"):
        begin_run(interrupted_run, config, make_labels("1", "3"))
    with pytest.raises(RunError, match="rows or images have changed"):
        begin_run(interrupted_run, config, make_labels("1", "2", fingerprint="b"))


def test_check_startable_refuses_a_finished_run(interrupted_run: RunPaths) -> None:
    write_json(interrupted_run.summary, {})
    with pytest.raises(RunError, match="'one' is finished"):
        check_startable(interrupted_run)


def test_check_startable_refuses_a_folder_with_other_files(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one/precious.txt").write_text("mine")
    with pytest.raises(RunError, match="is not the folder of a run"):
        check_startable(RunPaths(tmp_path / "one"))


def test_begin_run_refuses_a_folder_that_another_unnamed_run_created(
    composed: Any, tmp_path: Path, make_labels: Any
) -> None:
    config = composed(f"run.root={tmp_path}")
    run = choose_run_paths(config)
    labels = make_labels("1", "2")
    begin_run(run, config, labels)
    with pytest.raises(RunError, match="created by another run in the same second"):
        begin_run(run, config, labels)
