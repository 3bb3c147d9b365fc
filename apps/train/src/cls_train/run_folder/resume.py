"""Start a run, or go on with an interrupted one."""

from pathlib import Path
from typing import Any

from loguru import logger

from cls_export import LabelsMapping
from cls_export.contract.files import write_atomically
from cls_export.contract.run_layout import RunPaths
from cls_train.composition.config import RunConfig
from cls_train.errors import RunError
from cls_train.run_folder.run_lock import acquire_lock
from cls_train.run_folder.run_paths import read_config
from cls_train.run_folder.settings_diff import Difference, compare_settings
from cls_train.run_folder.state import (
    RunState,
    check_startable,
    forget_evaluation,
    forget_fit,
    forget_training,
    read_state,
    remove_stale_drafts,
)
from cls_train.run_folder.write_errors import describe_creation_error, failed_writes

_RESOLVED_FROM_DATA = ("auto", "weights")
"""Words in the preprocessing node that a run replaces by numbers when it starts."""

_KEEPS_EVALUATION = ("run", "logger", "allow_targets", "stages.report")
"""Settings that may change without another evaluation."""


def find_recorded_config(run: RunPaths, config: RunConfig) -> RunConfig | None:
    """Return the recorded configuration of a run to go on with.

    Returns:
        None for a run without a checkpoint, which starts from the beginning.

    Raises:
        RunError: config.yaml is damaged, or settings that change the weights differ. The message
            lists each of them with both values.
    """
    if read_state(run) < RunState.TRAINING:
        return None
    recorded = read_config(run)
    changing, _ = compare_settings(recorded, adopt_resolved_values(config, recorded))
    if changing:
        raise RunError(_describe_refusal(run, [str(difference) for difference in changing]))
    return recorded


def adopt_resolved_values(config: RunConfig, recorded: RunConfig) -> RunConfig:
    """Replace `auto` and `weights` by the values that the run has recorded for them."""
    model = dict(config.model)
    if model.get("stem", "auto") == "auto" and "stem" in recorded.model:
        model["stem"] = recorded.model["stem"]

    preprocessing = dict(config.preprocessing)
    for key, value in config.preprocessing.items():
        is_resolved = value in _RESOLVED_FROM_DATA and key in recorded.preprocessing
        if is_resolved:
            preprocessing[key] = recorded.preprocessing[key]
    if config.preprocessing.get("resize") == "weights":
        for detail in ("fill", "rounding"):
            if detail in recorded.preprocessing:
                preprocessing.setdefault(detail, recorded.preprocessing[detail])

    return config.model_copy(update={"model": model, "preprocessing": preprocessing})


def begin_run(run: RunPaths, config: RunConfig, labels: LabelsMapping) -> Path | None:
    """Create the run folder, or go on in the folder of an interrupted run; lock it in both cases.

    Args:
        run: The run.
        config: Its resolved configuration.
        labels: Its classes, with the fingerprint of its data.

    Returns:
        The checkpoint to resume from; None for a new run.

    Raises:
        RunError: The interrupted run had other settings, classes, or data; the message lists the
            differences. Or another process trains the run, or has finished it.
        RunFailedError: The folder cannot be written.
    """
    is_new = read_state(run) < RunState.TRAINING
    if is_new:
        _create_folder(run, config)
    acquire_lock(run)
    _check_unchanged(run, is_new=is_new)

    with failed_writes(run):
        remove_stale_drafts(run)
        if is_new:
            forget_training(run)
            labels.save(run.labels)
        else:
            _log_changes(check_same_run(run, config, labels))
            forget_fit(run)
        _write_config(run, config)
    return None if is_new else run.last


def continue_after_training(run: RunPaths, config: RunConfig) -> tuple[RunConfig, RunState]:
    """Go on with a run whose training is complete; lock it.

    The evaluation is kept only if it would be the same with the new settings.

    Returns:
        The configuration with recorded values, and the state: trained or evaluated.

    Raises:
        RunError: Settings that change the weights differ, or another process trains the run.
        RunFailedError: The folder cannot be written.
    """
    recorded = read_config(run)
    config = adopt_resolved_values(config, recorded)
    acquire_lock(run)
    _check_unchanged(run, is_new=False)

    with failed_writes(run):
        remove_stale_drafts(run)
        changing, harmless = compare_settings(recorded, config)
        if changing:
            raise RunError(_describe_refusal(run, [str(difference) for difference in changing]))
        _log_changes(harmless)
        if not all(_keeps_evaluation(difference) for difference in harmless):
            forget_evaluation(run)
        _write_config(run, config)
    return config, read_state(run)


def check_same_run(run: RunPaths, config: RunConfig, labels: LabelsMapping) -> list[Difference]:
    """Check that a run can go on with these settings, classes, and data.

    Returns:
        Settings that differ and do not change the weights.

    Raises:
        RunError: The message lists what differs.
    """
    changing, harmless = compare_settings(read_config(run), config)
    lines = [str(difference) for difference in changing]

    recorded = LabelsMapping.load(run.labels)
    if recorded.classes != labels.classes:
        classes_before = set(recorded.classes)
        classes_now = set(labels.classes)
        removed = sorted(classes_before - classes_now)
        added = sorted(classes_now - classes_before)
        lines.append(f"classes: removed {removed}, added {added}")
    elif recorded.provenance.data_fingerprint != labels.provenance.data_fingerprint:
        lines.append("data: rows or images have changed")

    if lines:
        raise RunError(_describe_refusal(run, lines))
    return harmless


def is_extended(run: RunPaths, config: RunConfig) -> bool:
    """Whether a trained run is to be trained for more epochs than it was."""
    recorded = read_config(run)
    epochs: Any = config.trainer.get("max_epochs")
    return bool(recorded.trainer.get("max_epochs") != epochs)


def _create_folder(run: RunPaths, config: RunConfig) -> None:
    try:
        run.path.mkdir(parents=True, exist_ok=config.run.name is not None)
    except FileExistsError as error:
        raise RunError(
            f"{run.path} was created by another run in the same second; "
            "start again, or set run.name"
        ) from error
    except OSError as error:
        raise describe_creation_error(error, run) from error


def _check_unchanged(run: RunPaths, *, is_new: bool) -> None:
    """Check that no other process has worked on the run before this one got the lock."""
    state = check_startable(run)
    if (state < RunState.TRAINING) != is_new:
        raise RunError(
            f"run {run.path.name!r} was trained by another process in the meantime; "
            "repeat the command to go on with it"
        )


def _describe_refusal(run: RunPaths, lines: list[str]) -> str:
    return (
        f"run {run.path.name!r} was interrupted and cannot go on with other settings; "
        "differences (recorded → now):\n  " + "\n  ".join(lines) + "\n"
        "Repeat its settings, or choose another run.name"
    )


def _log_changes(differences: list[Difference]) -> None:
    for difference in differences:
        logger.info("changed since the last command: {}", difference)


def _keeps_evaluation(difference: Difference) -> bool:
    for key in _KEEPS_EVALUATION:
        if difference.key == key or difference.key.startswith(f"{key}."):
            return True
    return False


def _write_config(run: RunPaths, config: RunConfig) -> None:
    write_atomically(run.config, config.to_yaml().encode())
