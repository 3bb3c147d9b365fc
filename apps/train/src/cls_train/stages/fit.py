"""Train a run: check its settings, read its data, build its objects, and fit."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.loggers import Logger
from loguru import logger

from cls_callbacks import ImageThroughputMonitor, TrainingInterrupted, TrainingWarnings
from cls_data import ClassificationDataModule, LoaderWorkerError, keep_freed_memory
from cls_data.gate.report import report_to_dict
from cls_export import LabelsMapping, Provenance
from cls_export.contract.run_layout import RunPaths
from cls_models import ClassificationModule
from cls_train.builders import (
    build_callbacks,
    build_data,
    build_module,
    build_preprocessing,
    build_trainer,
    check_nodes,
    optimize_for_device,
    record_stem,
)
from cls_train.builders.trainer import Callbacks
from cls_train.composition.config import RunConfig
from cls_train.composition.resolve_preprocessing import resolve_preprocessing
from cls_train.errors import ConfigError, RunError
from cls_train.logs import capture_lines, log_to_file
from cls_train.run_folder.checkpoints import choose_checkpoint
from cls_train.run_folder.provenance import get_code_commit, get_versions
from cls_train.run_folder.resume import begin_run, check_startable, find_interrupted_config
from cls_train.run_folder.run_paths import choose_run_paths, write_json


@dataclass(frozen=True, slots=True)
class FitResult:
    """The result of training.

    Attributes:
        run: Paths of the run.
        seconds: Time since the start, including reading the data.
        images_per_second: Training speed without validation; None without its callback.
        best_score: The monitored metric of best.ckpt.
        warnings: Messages of `cls_callbacks.TrainingWarnings`.
        is_resumed: Whether training started from a checkpoint.
        loggers: The loggers of the trainer, for the results of the evaluation.
    """

    run: RunPaths
    seconds: float
    images_per_second: float | None
    best_score: float | None
    warnings: list[str]
    is_resumed: bool
    loggers: list[Logger]


@dataclass(frozen=True, slots=True)
class _Training:
    """Everything that a fit needs, built from the resolved configuration."""

    config: RunConfig
    data: ClassificationDataModule
    module: ClassificationModule
    callbacks: Callbacks
    trainer: Trainer


def fit(config: RunConfig) -> FitResult:
    """Start or resume training. The run folder is created after all checks have passed.

    Raises:
        ConfigError, DataError: Before the first step; the message says what to change.
        RunError: The run cannot start, or a full disk or a dead loader worker stopped it.
        TrainingInterrupted: A signal stopped it.
    """
    started = time.perf_counter()
    keep_freed_memory()
    _check_config(config)
    run = choose_run_paths(config)
    check_startable(run)
    with capture_lines() as earlier_lines:
        training = _build_training(config, run)

    labels = _build_labels(training, run)
    checkpoint = begin_run(run, training.config, labels)
    _write_run_info(training, labels, run, is_new=checkpoint is None)

    with log_to_file(run.log, earlier_lines):
        if checkpoint is None:
            logger.info("run {}: starting", run.path)
        else:
            checkpoint = choose_checkpoint(run)  # Lightning fails on a damaged one
            logger.info("run {}: resuming from {}", run.path, checkpoint)
        _run_trainer(training, run, checkpoint)

    callbacks = training.callbacks
    return FitResult(
        run,
        seconds=time.perf_counter() - started,
        images_per_second=_get_images_per_second(callbacks.all),
        best_score=callbacks.best_and_last.best_score,
        warnings=_get_warnings(callbacks.all),
        is_resumed=checkpoint is not None,
        loggers=training.trainer.loggers,
    )


def _check_config(config: RunConfig) -> None:
    check_nodes(config)
    if config.trainer.get("max_steps", -1) != -1:
        raise ConfigError(
            "trainer.max_steps: a run limited by steps cannot be resumed exactly; "
            "set trainer.max_epochs"
        )


def _build_training(config: RunConfig, run: RunPaths) -> _Training:
    interrupted = find_interrupted_config(run, config)

    seed_everything(config.seed, workers=True, verbose=False)
    config = resolve_preprocessing(config, interrupted)
    preprocessing = build_preprocessing(config)
    callbacks = build_callbacks(config)
    data = build_data(config, preprocessing)

    # The trainer is built before the data is read, so a missing GPU or logger is an early error.
    trainer = build_trainer(config, run.path, callbacks.all, logging=True)
    data.prepare_data()
    data.setup()

    if interrupted is not None:
        config = config.model_copy(update={"model": interrupted.model})  # with its stem
    # A resumed run takes its weights from its checkpoint; their source may no longer exist.
    module = build_module(config, data, skip_initial_weights=interrupted is not None)
    config = record_stem(config, module.backbone)

    optimize_for_device(module, trainer)
    _limit_log_interval(trainer, data)
    return _Training(config, data, module, callbacks, trainer)


def _limit_log_interval(trainer: Trainer, data: ClassificationDataModule) -> None:
    """Log at least once in a short epoch."""
    images = len(data.records("train"))
    steps = max(1, images // data.config.batch_size)
    settings: Any = trainer  # Lightning does not declare the attribute
    settings.log_every_n_steps = min(settings.log_every_n_steps, steps)


def _build_labels(training: _Training, run: RunPaths) -> LabelsMapping:
    data = training.data
    provenance = Provenance(
        run=run.path.name,
        code_commit=get_code_commit(),
        data_fingerprint=data.fingerprint,
    )
    return LabelsMapping.from_classes(data.class_to_idx, data.preprocessing, provenance)


def _write_run_info(
    training: _Training, labels: LabelsMapping, run: RunPaths, *, is_new: bool
) -> None:
    """Record the settings and versions in the checkpoints, and the data check in the folder."""
    versions = get_versions()
    training.callbacks.best_and_last.metadata = {
        "config": training.config.model_dump(mode="json"),
        "labels": labels.model_dump(mode="json"),
        "versions": versions,
    }

    if is_new:
        write_json(run.origin, {"arguments": sys.argv[1:], "versions": versions})
    if training.data.report is not None:
        write_json(run.data_check, report_to_dict(training.data.report))


def _run_trainer(training: _Training, run: RunPaths, checkpoint: Path | None) -> None:
    trainer = training.trainer
    try:
        trainer.fit(
            training.module,
            datamodule=training.data,
            ckpt_path=checkpoint,
            weights_only=True if checkpoint else None,
        )
    except TrainingInterrupted as interrupted:
        logger.warning(
            "{}: stopped at step {} of epoch {}; repeat the command with run.name={} to resume "
            "from {}",
            interrupted.signal,
            trainer.global_step,
            trainer.current_epoch + 1,
            run.path.name,
            run.last if run.last.exists() else "the beginning",
        )
        raise
    except SystemExit as stop:
        # Before the first step Lightning 2.6.6 turns Ctrl-C into exit code 1.
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    except OSError as error:
        raise RunError(_describe_stop(error, run, trainer.global_step)) from error
    except RuntimeError as error:
        worker_error = LoaderWorkerError.from_runtime_error(error)
        if worker_error is None:
            raise
        raise RunError(_describe_stop(worker_error, run, trainer.global_step)) from error


def _describe_stop(error: OSError | LoaderWorkerError, run: RunPaths, step: int) -> str:
    cause = str(error)
    if isinstance(error, OSError) and error.strerror is not None:
        cause = f"{error.strerror}: {error.filename or run.path}"

    if run.last.exists():
        next_step = f"repeat the command with run.name={run.path.name} to resume from {run.last}"
    else:
        next_step = "start again; there is no checkpoint yet"

    return f"training stopped at step {step}: {cause}. After fixing the cause, {next_step}"


def _get_images_per_second(callbacks: Sequence[Callback]) -> float | None:
    for callback in callbacks:
        if isinstance(callback, ImageThroughputMonitor) and callback.seconds:
            return callback.images / callback.seconds
    return None


def _get_warnings(callbacks: Sequence[Callback]) -> list[str]:
    warnings: list[str] = []
    for callback in callbacks:
        if isinstance(callback, TrainingWarnings):
            warnings += callback.messages
    return warnings
