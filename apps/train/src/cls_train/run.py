"""Run one configuration: train, evaluate, export, and report.

Each stage is skipped if an earlier process has completed it; see `run_folder.state`.
"""

import json
from typing import Any

from loguru import logger

from cls_data import DataError
from cls_export.contract.run_layout import RunPaths
from cls_report import ReportError, Run, build_run_report, write_report
from cls_train.builders.loggers import build_loggers, closing_loggers
from cls_train.composition.config import RunConfig
from cls_train.console import print_summary
from cls_train.errors import RunError
from cls_train.logs import capture_lines, configure_logging, log_to_file
from cls_train.run_folder.resume import continue_after_training, is_extended
from cls_train.run_folder.run_lock import release_lock
from cls_train.run_folder.run_paths import choose_run_paths, write_json
from cls_train.run_folder.state import RunState, check_startable
from cls_train.run_folder.write_errors import failed_writes
from cls_train.stages import evaluation_process
from cls_train.stages.evaluation_process import evaluate_in_clean_process
from cls_train.stages.fit import FitResult, check_settings, fit, read_result
from cls_train.stages.summary import build_summary, build_summary_rows, log_evaluation

MAX_EPOCHS_WITH_WAITING_PROCESS = 10
"""Longer runs start the evaluation process after training: a waiting process takes 0.6 GB."""


def run(config: RunConfig) -> None:
    """Train, evaluate, export, and report one run, and print its results.

    Raises:
        ConfigError, DataError, RunError: See `fit`.
        RunFailedError: A file could not be written, or the evaluation process was killed.
        IdentityError: The exported weights do not reproduce their metric.
    """
    configure_logging()
    if config.stages.export and not config.stages.evaluate:
        logger.warning("stages.export has no effect without stages.evaluate")

    paths = choose_run_paths(config)
    try:
        fit_result, state = _train(config, paths)
        with closing_loggers(fit_result.loggers):
            evaluation = _evaluate(config, fit_result, state)
            _finish(config, fit_result, evaluation)
    finally:
        release_lock(paths)
    rows = build_summary_rows(fit_result, evaluation)
    print_summary(rows)


def _train(config: RunConfig, paths: RunPaths) -> tuple[FitResult, RunState]:
    """Train, or read the result of a training that is complete."""
    state = check_startable(paths)
    if state < RunState.TRAINED or is_extended(paths, config):
        epochs = config.trainer.get("max_epochs")
        if isinstance(epochs, int) and epochs > MAX_EPOCHS_WITH_WAITING_PROCESS:
            evaluation_process.stop()
        return fit(config, paths), RunState.TRAINED

    check_settings(config)
    with capture_lines() as earlier_lines:
        config, state = continue_after_training(paths, config)
    with log_to_file(paths.log, earlier_lines):
        logger.info("run {}: training is complete, going on from there", paths.path)
    loggers = build_loggers(config.logger, paths.path)
    return read_result(paths, loggers), state


def _evaluate(config: RunConfig, fit_result: FitResult, state: RunState) -> dict[str, Any] | None:
    """Return the content of evaluation.json; None if the run is not to be evaluated."""
    if not config.stages.evaluate:
        return None
    if state is RunState.EVALUATED:
        return _read_evaluation(fit_result.run)

    evaluate_in_clean_process(fit_result.run, config.allow_targets)
    evaluation = _read_evaluation(fit_result.run)
    log_evaluation(fit_result, evaluation)
    return evaluation


def _finish(config: RunConfig, fit_result: FitResult, evaluation: dict[str, Any] | None) -> None:
    """Write the report, then the summary, which makes the run a finished one."""
    paths = fit_result.run
    with failed_writes(paths):
        if evaluation is not None and config.stages.report:
            _write_report(paths)
        write_json(paths.summary, build_summary(fit_result, evaluation))


def _write_report(paths: RunPaths) -> None:
    try:
        write_report(build_run_report(Run.open(paths.path)), paths.report)
    except (DataError, ReportError) as error:  # the run is finished without a report
        logger.warning("no report: {}", error)


def _read_evaluation(paths: RunPaths) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(paths.evaluation.read_bytes())
    except (OSError, ValueError) as error:
        raise RunError(
            f"{paths.evaluation} is damaged ({error}); delete it, and repeat the command to "
            "evaluate again"
        ) from error
    return content
