"""Train a run: check its settings, read its data, build its objects, and fit."""

import json
import os
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.loggers import Logger
from loguru import logger

from cls_callbacks import (
    ImageThroughputMonitor,
    RemoteMirror,
    RemotePushCallback,
    TrainingInterrupted,
    TrainingWarnings,
)
from cls_data import ClassificationDataModule, keep_freed_memory
from cls_data.gate.report import report_to_dict
from cls_data.loading.decoded_dataset import DecodedDataset
from cls_export import LabelsMapping, Provenance
from cls_export.contract.run_layout import RunPaths
from cls_models import ClassificationModule
from cls_train.builders import (
    Callbacks,
    build_callbacks,
    build_data,
    build_module,
    build_preprocessing,
    build_trainer,
    check_nodes,
    describe_stop,
    optimize_for_device,
    record_stem,
    warn_about_slow_precision,
)
from cls_train.composition.config import RunConfig
from cls_train.composition.resolve_preprocessing import resolve_preprocessing
from cls_train.distributed.environment import ProcessRank
from cls_train.distributed.ranks import (
    Ranks,
    get_ranks,
)
from cls_train.distributed.settings import adapt_to_ranks
from cls_train.errors import RunError
from cls_train.logs import capture_lines, log_to_file
from cls_train.run_folder.checkpoints import choose_checkpoint
from cls_train.run_folder.provenance import get_code_commit, get_versions
from cls_train.run_folder.remote import check_remote
from cls_train.run_folder.resume import (
    adopt_resolved_values,
    begin_run,
    check_same_run,
    find_recorded_config,
)
from cls_train.run_folder.run_paths import choose_run_paths, write_json
from cls_train.run_folder.state import check_startable, forget_evaluation
from cls_train.run_folder.write_errors import failed_writes
from cls_train.stages import evaluation_process
from cls_train.stages.evaluation_starter import EvaluationStarter
from cls_train.stages.run_trainer import check_has_best, run_trainer


@dataclass(frozen=True, slots=True)
class FitResult:
    """The result of training. fit.json holds all of it but `run` and `loggers`.

    Attributes:
        run: Paths of the run.
        seconds: Time since the start, including reading the data.
        images_per_second: Training speed without validation; None without its callback.
        monitor: Name of the monitored metric.
        best_score: The monitored metric of best.ckpt.
        stopped: Why training ended before its last epoch, such as "stopped after epoch 2 of 5 by
            EarlyStopping"; None if it did not.
        warnings: Messages of `cls_callbacks.TrainingWarnings`.
        is_resumed: Whether training started from a checkpoint.
        loggers: The loggers of the trainer, for the results of the evaluation.
    """

    run: RunPaths
    seconds: float
    images_per_second: float | None
    monitor: str
    best_score: float | None
    stopped: str | None
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


def check(config: RunConfig, num_processes: int = 1) -> None:
    """Check everything that can be checked before the first step, without touching the run folder.

    Builds all objects, reads the data, and runs the data gate. A synthetic data set is rendered and
    a store of decoded images is written if they do not exist, as for a run.

    Args:
        config: The run.
        num_processes: How many processes are to train it.

    Raises:
        ConfigError, DataError: The message says what to change.
        RunError: The run cannot start or be resumed.
    """
    keep_freed_memory()
    check_settings(config)
    run = choose_run_paths(config)
    check_remote(config, run)
    check_startable(run)
    # This process checks alone for all of them, which are not started.
    ranks = Ranks(ProcessRank(0, num_processes, 0, num_processes))
    training = _build_training(adapt_to_ranks(config, ranks), run)
    training.data.check_ranks(num_processes)
    if find_recorded_config(run, config) is not None:
        check_same_run(run, training.config, _build_labels(training, run))


def fit(config: RunConfig, run: RunPaths, mirror: RemoteMirror | None = None) -> FitResult:
    """Start or resume training. The run folder is created after all checks have passed.

    Args:
        config: The configuration.
        run: The run.
        mirror: Its remote copy, to which each checkpoint is pushed.

    Raises:
        ConfigError, DataError: Before the first step; the message says what to change.
        RunError: The run cannot start or be resumed.
        RunFailedError: A full disk or a dead loader worker stopped it, or it ended without a
            best.ckpt.
        TrainingInterrupted: A signal stopped it.
    """
    started = time.perf_counter()
    ranks = get_ranks()
    keep_freed_memory()
    check_settings(config)
    with capture_lines() as earlier_lines:
        training = _build_training(config, run)
        labels = _build_labels(training, run)
        checkpoint = ranks.on_first(lambda: _begin(training, labels, run))
        _check_shared_folder(run)

    _add_metadata(training, labels)
    if mirror is not None:
        _push_checkpoints(training, mirror)
    if ranks.is_first and config.stages.evaluate:
        _start_evaluation_early(training.trainer)

    with log_to_file(run.log, earlier_lines) if ranks.is_first else nullcontext():
        if checkpoint is None:
            logger.info("run {}: starting", run.path)
        else:
            # Lightning fails on a damaged one.
            checkpoint = ranks.on_first(lambda: choose_checkpoint(run))
            logger.info("run {}: resuming from {}", run.path, checkpoint)
        try:
            run_trainer(training.trainer, training.module, training.data, run, checkpoint)
        except TrainingInterrupted:  # all ranks stop after the same step
            ranks.disconnect()
            raise
        ranks.disconnect()
        stopped = describe_stop(training.trainer, config.trainer.get("max_time"))
        if stopped is not None:
            logger.info("training {}", stopped)

    if ranks.is_first:
        check_has_best(training.trainer, training.config, run)
    callbacks = training.callbacks
    result = FitResult(
        run,
        seconds=time.perf_counter() - started,
        images_per_second=_get_images_per_second(callbacks.all),
        monitor=training.config.monitor.metric,
        best_score=callbacks.best_and_last.best_score,
        stopped=stopped,
        warnings=_get_warnings(callbacks.all),
        is_resumed=checkpoint is not None,
        loggers=training.trainer.loggers,
    )
    if ranks.is_first:
        with failed_writes(run):
            _write_result(result)
    return result


def read_result(run: RunPaths, loggers: list[Logger]) -> FitResult:
    """Read the result of a training that is complete.

    Raises:
        RunError: fit.json is damaged.
    """
    try:
        content = json.loads(run.fit.read_bytes())
        seconds = content.pop("fit_seconds")
        images_per_second = content.pop("train_images_per_second")
        return FitResult(
            run=run,
            seconds=seconds,
            images_per_second=images_per_second,
            loggers=loggers,
            **content,
        )
    except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        raise RunError(
            f"{run.fit} is damaged ({error}); delete it, and repeat the command to write it again"
        ) from error


def _write_result(result: FitResult) -> None:
    """Write fit.json, with the keys of summary.json, which ends training."""
    content = {
        "fit_seconds": result.seconds,
        "train_images_per_second": result.images_per_second,
        "monitor": result.monitor,
        "best_score": result.best_score,
        "stopped": result.stopped,
        "warnings": result.warnings,
        "is_resumed": result.is_resumed,
    }
    forget_evaluation(result.run)  # of weights that were not final yet
    write_json(result.run.fit, content)


def check_settings(config: RunConfig) -> None:
    """Check the settings without building anything.

    Raises:
        ConfigError: The message names the key.
    """
    check_nodes(config)


def _build_training(config: RunConfig, run: RunPaths) -> _Training:
    ranks = get_ranks()
    config = adapt_to_ranks(config, ranks)
    recorded = ranks.on_first(lambda: find_recorded_config(run, config))

    seed_everything(config.seed, workers=True, verbose=False)
    if recorded is not None:
        config = adopt_resolved_values(config, recorded)
    config = ranks.on_first(lambda: resolve_preprocessing(config))
    preprocessing = build_preprocessing(config)
    callbacks = build_callbacks(config)
    data = build_data(config, preprocessing)

    # The trainer is built before the data is read, so a missing GPU or logger is an early error.
    trainer = build_trainer(config, run.path, callbacks.all, ranks.process)
    data.config.rank_batch_size(ranks.count)  # fails if the ranks cannot share a batch
    _prepare_data(data)
    data.check_ranks(ranks.count)

    # A resumed run takes its weights from its checkpoint; their source may no longer exist.
    module = build_module(config, data, skip_initial_weights=recorded is not None)
    config = record_stem(config, module.backbone)

    optimize_for_device(module, trainer)
    if ranks.is_first:
        warn_about_slow_precision(module, trainer, preprocessing.size)
    _limit_log_interval(trainer, data)
    return _Training(config, data, module, callbacks, trainer)


def _prepare_data(data: ClassificationDataModule) -> None:
    """Check and decode the data, once on each machine."""

    def prepare() -> DecodedDataset:
        data.prepare_data()
        data.setup()
        return data.decoded

    data.use_decoded(get_ranks().on_first_of_node(prepare))


def _limit_log_interval(trainer: Trainer, data: ClassificationDataModule) -> None:
    """Log at least once in a short epoch."""
    images = len(data.records("train"))
    steps = max(1, images // data.config.batch_size)
    settings: Any = trainer  # Lightning does not declare the attribute
    settings.log_every_n_steps = min(settings.log_every_n_steps, steps)


def _build_labels(training: _Training, run: RunPaths) -> LabelsMapping:
    data = training.data
    commit = get_code_commit() or os.environ.get("CLS_COMMIT")  # the image of apps/train sets it
    provenance = Provenance(
        run=run.path.name,
        code_commit=commit or None,
        data_fingerprint=data.fingerprint,
    )
    return LabelsMapping.from_classes(data.class_to_idx, data.preprocessing, provenance)


def _begin(training: _Training, labels: LabelsMapping, run: RunPaths) -> Path | None:
    """Begin the run, record its origin and the data check, and return its checkpoint."""
    checkpoint = begin_run(run, training.config, labels)
    with failed_writes(run):
        _write_run_info(training, run, is_new=checkpoint is None)
    return checkpoint


def _check_shared_folder(run: RunPaths) -> None:
    """Check that all machines see the run folder, from which they resume.

    Raises:
        RunError: One does not.
    """

    def check() -> None:
        if not run.config.exists():
            raise RunError(
                f"{run.path} is not on every machine of this run; set run.root to a folder that "
                "all machines share"
            )

    get_ranks().on_first_of_node(check)


def _add_metadata(training: _Training, labels: LabelsMapping) -> None:
    """Record the settings and versions in the checkpoints."""
    training.callbacks.best_and_last.metadata = {
        "config": training.config.model_dump(mode="json"),
        "labels": labels.model_dump(mode="json"),
        "versions": get_versions(),
    }


def _write_run_info(training: _Training, run: RunPaths, *, is_new: bool) -> None:
    if is_new:
        write_json(run.origin, {"arguments": sys.argv[1:], "versions": get_versions()})
    if training.data.report is not None:
        write_json(run.data_check, report_to_dict(training.data.report))
    training.data.write_split_record(run.split)


def _push_checkpoints(training: _Training, mirror: RemoteMirror) -> None:
    callbacks: list[Callback] = training.trainer.callbacks  # type: ignore[attr-defined]
    callbacks.append(RemotePushCallback(mirror))
    training.callbacks.best_and_last.on_saved = mirror.push


def _start_evaluation_early(trainer: Trainer) -> None:
    """On a GPU, let the evaluation process import its modules during the last epochs."""
    if trainer.strategy.root_device.type != "cpu":
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        callbacks.append(EvaluationStarter(evaluation_process.start))


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
