"""C1, C2: a run that was killed at any moment goes on."""

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from cls_export.contract.files import draft_path
from cls_export.contract.run_layout import RunPaths
from cls_train.composition.config import RunConfig
from cls_train.errors import RunError
from cls_train.run_folder.resume import begin_run
from cls_train.run_folder.run_paths import choose_run_paths, write_json
from cls_train.run_folder.state import (
    RunState,
    check_startable,
    forget_fit,
    read_state,
    remove_stale_drafts,
)

DEAD_PROCESS = 2**22 + 1
"""Larger than any process number of Linux."""


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    return RunPaths(tmp_path / "one")


def test_the_state_follows_the_files_that_each_stage_writes_last(run: RunPaths) -> None:
    assert read_state(run) is RunState.ABSENT
    run.path.mkdir()
    assert read_state(run) is RunState.ABSENT
    run.lock.touch()
    assert read_state(run) is RunState.BEGUN
    run.checkpoints.mkdir()
    run.best.touch()
    assert read_state(run) is RunState.BEGUN, "best.ckpt alone cannot be resumed"
    run.next.touch()
    assert read_state(run) is RunState.TRAINING
    run.evaluation.touch()
    assert read_state(run) is RunState.TRAINING, "an evaluation of weights that are not final"
    run.fit.touch()
    assert read_state(run) is RunState.EVALUATED
    run.evaluation.unlink()
    assert read_state(run) is RunState.TRAINED
    run.summary.touch()
    assert read_state(run) is RunState.FINISHED


@pytest.mark.parametrize("file", ["last", "next", "previous"])
def test_any_resumable_checkpoint_makes_a_training_run(run: RunPaths, file: str) -> None:
    run.checkpoints.mkdir(parents=True)
    getattr(run, file).touch()
    assert read_state(run) is RunState.TRAINING


@pytest.mark.parametrize(
    "files",
    [
        (),
        ("run.lock",),
        ("run.lock", "owner.json"),
        ("run.lock", "owner.json", "labels_mapping.json"),
        ("run.lock", ".owner.json.host.7.draft"),
        ("run.lock", "owner.json", "labels_mapping.json", ".config.yaml.host.7.draft"),
        ("config.yaml", "train.log", "tensorboard", "notes.txt"),
    ],
)
def test_a_run_killed_while_it_began_can_start_again(run: RunPaths, files: Any) -> None:
    run.path.mkdir()
    for name in files:
        (run.path / name).touch()
    assert check_startable(run) in (RunState.ABSENT, RunState.BEGUN)


@pytest.mark.parametrize("name", ["precious.txt", ".git", "train.jsonl", "model.onnx"])
def test_a_folder_with_files_that_no_run_writes_is_refused(run: RunPaths, name: str) -> None:
    run.path.mkdir()
    (run.path / name).write_text("mine")
    with pytest.raises(RunError, match=f"is not the folder of a run: it holds '{name}'"):
        check_startable(run)
    assert (run.path / name).read_text() == "mine"


def test_a_file_and_a_broken_link_in_place_of_the_folder_are_refused(run: RunPaths) -> None:
    run.path.write_text("a file")
    with pytest.raises(RunError, match="is not a folder"):
        check_startable(run)
    run.path.unlink()
    run.path.symlink_to("nowhere")
    with pytest.raises(RunError, match="is a broken link"):
        check_startable(run)


def test_a_finished_run_is_refused_and_a_missing_report_has_a_command(run: RunPaths) -> None:
    run.path.mkdir()
    write_json(run.summary, {})
    with pytest.raises(RunError, match=r"'one' is finished .* delete its folder$"):
        check_startable(run)
    run.predictions.mkdir()
    with pytest.raises(RunError, match=r"report is missing; write it with: uv run apps/report "):
        check_startable(run)


def test_training_that_goes_on_forgets_its_end_and_its_evaluation(run: RunPaths) -> None:
    run.checkpoints.mkdir(parents=True)
    for path in (run.last, run.fit, run.evaluation):
        path.touch()
    forget_fit(run)
    assert read_state(run) is RunState.TRAINING
    assert not run.evaluation.exists()


def test_drafts_of_dead_processes_are_removed_and_those_of_running_ones_stay(
    run: RunPaths,
) -> None:
    run.checkpoints.mkdir(parents=True)
    host = socket.gethostname().replace(".", "-")
    ours = draft_path(run.report)
    dead = [
        run.path / f".config.yaml.{host}.{DEAD_PROCESS}.draft",
        run.path / f".config.yaml.other-host.{os.getpid()}.draft",
        run.checkpoints / f".last.ckpt.{host}.{DEAD_PROCESS}.draft",
    ]
    for path in (ours, *dead):
        path.touch()
    staged = run.path / f".export.{host}.{DEAD_PROCESS}.draft"
    (staged / "golden").mkdir(parents=True)
    (run.path / ".bundle-x1").mkdir()

    remove_stale_drafts(run)
    assert sorted(run.path.rglob(".*")) == [ours]


def test_begin_run_removes_drafts_of_dead_processes(config: RunConfig, make_labels: Any) -> None:
    run = choose_run_paths(config)
    run.path.mkdir()
    host = socket.gethostname().replace(".", "-")
    draft = run.path / f".config.yaml.{host}.{DEAD_PROCESS}.draft"
    draft.touch()
    begin_run(run, config, make_labels("1", "2"))
    assert not draft.exists()
