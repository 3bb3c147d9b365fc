"""Run one configuration: train, evaluate, export, and report.

Each stage is skipped if an earlier process has completed it; see `run_folder.state`.
"""

import json
from typing import Any

from loguru import logger

from cls_callbacks import RemoteMirror
from cls_data import DataError
from cls_export.contract.run_layout import RunPaths
from cls_train.builders.loggers import build_loggers, closing_loggers
from cls_train.composition.config import RunConfig
from cls_train.console import print_summary
from cls_train.distributed.ranks import get_ranks
from cls_train.errors import RunError
from cls_train.logs import capture_lines, configure_logging, log_to_file
from cls_train.run_folder.remote import mirrored
from cls_train.run_folder.resume import continue_after_training, is_extended
from cls_train.run_folder.run_lock import release_lock
from cls_train.run_folder.run_paths import choose_run_paths, write_json
from cls_train.run_folder.state import RunState, check_startable, read_state
from cls_train.run_folder.write_errors import failed_writes
from cls_train.stages import evaluation_process
from cls_train.stages.evaluation_process import evaluate_in_clean_process
from cls_train.stages.fit import FitResult, check_settings, fit, read_result
from cls_train.stages.summary import build_summary, build_summary_rows, log_evaluation


def run(config: RunConfig) -> None:
    """Train, evaluate, export, and report one run, and print its results.

    Raises:
        ConfigError, DataError, RunError: See `fit`.
        RunFailedError: A file could not be written, or the evaluation process was killed.
        IdentityError: The exported weights do not reproduce their metric.
    """
    ranks = get_ranks()
    configure_logging(is_first=ranks.is_first)
    paths = ranks.on_first(lambda: choose_run_paths(config))
    if not ranks.is_first:
        _train_with_first_rank(config, paths)
        return

    if config.stages.export and not config.stages.evaluate:
        logger.warning("stages.export has no effect without stages.evaluate")
    try:
        with mirrored(config, paths) as mirror:
            if mirror is not None and _is_unpushed(mirror, paths):
                _tell_other_ranks(trains=False)
                logger.info("run {} is finished, and is pushed now", paths.path)
                return
            fit_result, state = _train(config, paths, mirror)
            with closing_loggers(fit_result.loggers):
                evaluation = _evaluate(config, fit_result, state)
                _finish(config, fit_result, evaluation)
    finally:
        release_lock(paths)
    rows = build_summary_rows(fit_result, evaluation)
    print_summary(rows)


def _train_with_first_rank(config: RunConfig, paths: RunPaths) -> None:
    """Take part in training; the first rank does everything else."""
    if _tell_other_ranks(trains=False):
        fit(config, paths)


def _tell_other_ranks(*, trains: bool) -> bool:
    """Return the value of the first rank on all ranks. They part if there is nothing to train."""
    ranks = get_ranks()
    trains = ranks.on_first(lambda: trains)
    if not trains:
        ranks.disconnect()
    return trains


def _is_unpushed(mirror: RemoteMirror, paths: RunPaths) -> bool:
    """Return whether a run is finished here, and its remote copy is not."""
    return read_state(paths) is RunState.FINISHED and not mirror.is_complete()


def _train(
    config: RunConfig, paths: RunPaths, mirror: RemoteMirror | None
) -> tuple[FitResult, RunState]:
    """Train, or read the result of a training that is complete."""
    state = check_startable(paths)
    trains = state < RunState.TRAINED or is_extended(paths, config)
    if _tell_other_ranks(trains=trains):
        fit_result = fit(config, paths, mirror)
        if mirror is not None:
            mirror.push()
        return fit_result, RunState.TRAINED

    if config.stages.evaluate and state < RunState.EVALUATED:
        evaluation_process.start()
    check_settings(config)
    with capture_lines() as earlier_lines:
        config, state = continue_after_training(paths, config)
    if mirror is not None:
        mirror.push()
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

    evaluate_in_clean_process(fit_result.run, config.allow_targets, meanwhile=_import_report)
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


def _import_report() -> None:
    """Import what the report needs, SciPy above all."""
    import cls_report.page.render
    import cls_report.reports.run_report  # noqa: F401


def _write_report(paths: RunPaths) -> None:
    from cls_report import ReportError, Run, build_run_report, write_report

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
