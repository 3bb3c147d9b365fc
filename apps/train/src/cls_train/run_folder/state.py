"""States of a run folder, told from the files in it. docs/runs.md describes them.

Each stage writes its own file last, so a killed process leaves a folder in one of these states:

    absent → begun → training → trained → evaluated → finished
"""

import shutil
import socket
from enum import IntEnum
from pathlib import Path

from cls_callbacks import remove_checkpoint
from cls_export.contract.files import find_stale_drafts
from cls_export.contract.run_layout import RunPaths
from cls_train.errors import RunError
from cls_train.run_folder.checkpoints import resumable_checkpoints
from cls_train.run_folder.run_lock import check_unlocked


class RunState(IntEnum):
    """How far a run has come, in order."""

    ABSENT = 0
    """No folder, or an empty one."""
    BEGUN = 1
    """No checkpoint to resume from yet: training starts at the first step."""
    TRAINING = 2
    """There is a checkpoint to resume from."""
    TRAINED = 3
    """Training is complete: only evaluation and report are missing."""
    EVALUATED = 4
    """The evaluation is complete: only report and summary are missing."""
    FINISHED = 5
    """summary.json exists."""


def read_state(run: RunPaths) -> RunState:
    """Return the state of a run folder."""
    if run.summary.exists():
        return RunState.FINISHED

    has_checkpoint = any(path.exists() for path in resumable_checkpoints(run))
    if not has_checkpoint:
        has_files = run.path.is_dir() and any(run.path.iterdir())
        return RunState.BEGUN if has_files else RunState.ABSENT

    if not run.fit.exists():
        return RunState.TRAINING
    return RunState.EVALUATED if run.evaluation.exists() else RunState.TRAINED


def check_startable(run: RunPaths) -> RunState:
    """Check that a run can start or go on in its folder, before any work is done.

    Raises:
        RunError: The run is finished, another process trains it, or the folder holds other files.
    """
    try:
        state = read_state(run)
        _check_folder(run, state)
    except OSError as error:
        raise RunError(
            f"{error.filename or run.path}: cannot be read ({error.strerror}); "
            "choose another run.root or run.name"
        ) from error

    if state is RunState.FINISHED:
        raise RunError(_describe_finished(run))
    check_unlocked(run)
    return state


def remove_stale_drafts(run: RunPaths) -> None:
    """Delete what killed processes have left half-written. Call it while holding the run's lock.

    The lock keeps other trainings away, so drafts of other hosts are stale too. Drafts of running
    processes of this host remain, such as that of a report.
    """
    folders = (run.path, run.checkpoints, run.predictions, run.plots)
    for folder in folders:
        for draft in _find_stale_drafts(folder):
            if draft.is_dir() and not draft.is_symlink():
                shutil.rmtree(draft, ignore_errors=True)
            else:
                draft.unlink(missing_ok=True)


def forget_evaluation(run: RunPaths) -> None:
    """Go back to the state `TRAINED`, because another evaluation is wanted."""
    run.evaluation.unlink(missing_ok=True)


def forget_fit(run: RunPaths) -> None:
    """Go back to the state `TRAINING`, because training goes on."""
    forget_evaluation(run)
    run.fit.unlink(missing_ok=True)


def forget_training(run: RunPaths) -> None:
    """Delete what an attempt left that ended before there was a checkpoint to resume from.

    The next attempt may have other settings, so a best.ckpt of this one must not be taken for its.
    """
    forget_fit(run)
    run.metrics.unlink(missing_ok=True)
    remove_checkpoint(run.best)


def _check_folder(run: RunPaths, state: RunState) -> None:
    if run.path.is_symlink() and not run.path.exists():
        raise RunError(f"{run.path} is a broken link; choose another run.name or run.root")
    if run.path.exists() and not run.path.is_dir():
        raise RunError(f"{run.path} is not a folder; choose another run.name or run.root")
    if state is not RunState.BEGUN or run.config.exists():
        return

    foreign = _find_foreign_files(run)
    if foreign:
        raise RunError(
            f"{run.path} is not the folder of a run: it holds {foreign[0]!r} and no config.yaml; "
            "choose another run.name or run.root"
        )


def _find_foreign_files(run: RunPaths) -> list[str]:
    """Return the names of files that a run never writes before its config.yaml."""
    own_names = {run.lock.name, run.owner.name, run.labels.name}
    drafts = set(run.path.glob(".*.draft"))

    foreign = []
    for path in run.path.iterdir():
        if path.name not in own_names and path not in drafts:
            foreign.append(path.name)
    return sorted(foreign)


def _find_stale_drafts(folder: Path) -> list[Path]:
    host = socket.gethostname().replace(".", "-")
    stale = find_stale_drafts(folder)
    for draft in folder.glob(".*.draft"):
        parts = draft.name.split(".")  # .NAME.HOST.PROCESS.draft
        is_of_this_host = len(parts) >= 4 and parts[-3] == host
        if not is_of_this_host:
            stale.append(draft)

    stale += folder.glob(".bundle-*")  # earlier versions
    return stale


def _describe_finished(run: RunPaths) -> str:
    has_copy = run.remote.exists()
    folders = "its folders, here and in run.remote" if has_copy else "its folder"
    message = (
        f"run {run.path.name!r} is finished ({run.summary}); "
        f"choose another run.name, or delete {folders}"
    )
    was_evaluated = run.predictions.is_dir()
    if was_evaluated and not run.report.exists():
        message += f". Its report is missing; write it with: uv run apps/report {run.path}"
    return message
