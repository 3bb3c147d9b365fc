"""Start a run, or resume an interrupted one with the same settings, classes, and data."""

import difflib
from pathlib import Path

from omegaconf import OmegaConf

from cls_export import LabelsMapping
from cls_export.contract.files import write_atomically
from cls_export.contract.run_layout import RunPaths
from cls_train.composition.config import RunConfig
from cls_train.errors import RunError
from cls_train.run_folder.checkpoints import resumable_checkpoints
from cls_train.run_folder.run_lock import acquire_lock, check_unlocked
from cls_train.run_folder.run_paths import read_config

_MAY_CHANGE = {"allow_targets", "run", "stages"}
"""Sections that may change on resume.

`run` may change because different names and roots can point to the same folder.
"""


def check_startable(run: RunPaths) -> None:
    """Check that a run can start or resume in its folder, before any work is done.

    Raises:
        RunError: The run is finished, another process trains it, or the folder holds other files.
    """
    if run.summary.exists():
        raise RunError(
            f"run {run.path.name!r} is finished ({run.summary}); "
            "choose another run.name, or delete its folder"
        )
    if run.path.exists() and not run.config.exists() and any(run.path.iterdir()):
        raise RunError(
            f"{run.path} is not the folder of a run; choose another run.name or run.root"
        )
    check_unlocked(run)


def is_interrupted(run: RunPaths) -> bool:
    """Whether the folder holds a checkpoint to resume from."""
    checkpoints = resumable_checkpoints(run)
    return any(path.exists() for path in checkpoints)


def find_interrupted_config(run: RunPaths, config: RunConfig) -> RunConfig | None:
    """Return the recorded configuration of an interrupted run of the same model.

    `stem: auto` matches the stem that the run has recorded.

    Returns:
        None if there is nothing to resume, or the model differs.

    Raises:
        RunError: config.yaml is damaged.
    """
    if not is_interrupted(run):
        return None

    recorded = read_config(run)
    stem = config.model.get("stem", "auto")
    if stem not in ("auto", recorded.model.get("stem")):
        return None

    recorded_model = {**recorded.model, "stem": stem}
    model = {**config.model, "stem": stem}
    return recorded if model == recorded_model else None


def begin_run(run: RunPaths, config: RunConfig, labels: LabelsMapping) -> Path | None:
    """Create the run folder, or check that an interrupted run can resume; then lock it.

    Returns:
        The checkpoint to resume from; None for a new run.

    Raises:
        RunError: The interrupted run had other settings, classes, or data; the message lists the
            differences. Or another process trains the run, or the folder cannot be created.
    """
    if not is_interrupted(run):
        _create(run, config, labels)
        return None
    acquire_lock(run)
    _check_same_run(run, config, labels)
    write_atomically(run.config, config.to_yaml().encode())  # its stages may be new
    for draft in run.checkpoints.glob(".*"):  # left by a process that was killed while writing
        draft.unlink()
    return run.last


def _create(run: RunPaths, config: RunConfig, labels: LabelsMapping) -> None:
    try:
        run.path.mkdir(parents=True, exist_ok=config.run.name is not None)
        acquire_lock(run)
        labels.save(run.labels)
        write_atomically(run.config, config.to_yaml().encode())
    except FileExistsError as error:
        raise RunError(
            f"{run.path} was created by another run in the same second; "
            "start again, or set run.name"
        ) from error
    except OSError as error:
        raise RunError(
            f"{run.path}: the run folder cannot be created ({error.strerror})"
        ) from error


def _check_same_run(run: RunPaths, config: RunConfig, labels: LabelsMapping) -> None:
    before = _comparable_lines(read_config(run))
    now = _comparable_lines(config)
    differences = [line for line in difflib.ndiff(before, now) if line[0] in "-+"]

    recorded = LabelsMapping.load(run.labels)
    if recorded.classes != labels.classes:
        classes_before = set(recorded.classes)
        classes_now = set(labels.classes)
        removed = sorted(classes_before - classes_now)
        added = sorted(classes_now - classes_before)
        differences.append(f"classes: removed {removed}, added {added}")
    elif recorded.provenance.data_fingerprint != labels.provenance.data_fingerprint:
        differences.append("data: rows or images have changed")

    if differences:
        raise RunError(
            f"run {run.path.name!r} was interrupted and cannot be resumed with other settings; "
            "differences (- then, + now):\n  " + "\n  ".join(differences) + "\n"
            "Repeat its settings, or choose another run.name"
        )


def _comparable_lines(config: RunConfig) -> list[str]:
    settings = config.model_dump(mode="json", exclude=_MAY_CHANGE)
    text = OmegaConf.to_yaml(OmegaConf.create(settings))
    return text.splitlines()
