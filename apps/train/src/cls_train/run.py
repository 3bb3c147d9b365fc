"""Run one configuration: train, evaluate, export, and report."""

from loguru import logger

from cls_data import DataError
from cls_export.contract.run_layout import RunPaths
from cls_report import ReportError, Run, build_run_report, write_report
from cls_train.composition.config import RunConfig
from cls_train.console import print_summary
from cls_train.logs import configure_logging
from cls_train.run_folder.run_lock import release_lock
from cls_train.run_folder.run_paths import write_json
from cls_train.stages import evaluation_process
from cls_train.stages.evaluation_process import evaluate_in_clean_process
from cls_train.stages.fit import fit
from cls_train.stages.summary import build_summary, build_summary_rows, log_evaluation

MAX_EPOCHS_WITH_WAITING_PROCESS = 10
"""Longer runs start the evaluation process after training: a waiting process takes 0.6 GB."""


def run(config: RunConfig) -> None:
    """Train, evaluate, export, and report one run, and print its results."""
    configure_logging()
    if config.stages.export and not config.stages.evaluate:
        logger.warning("stages.export has no effect without stages.evaluate")

    epochs = config.trainer.get("max_epochs")
    if isinstance(epochs, int) and epochs > MAX_EPOCHS_WITH_WAITING_PROCESS:
        evaluation_process.stop()

    fit_result = fit(config)
    paths = fit_result.run
    evaluation = None
    if config.stages.evaluate:
        evaluation = evaluate_in_clean_process(paths, config.allow_targets)
        log_evaluation(fit_result, evaluation)

    write_json(paths.summary, build_summary(fit_result, evaluation))
    release_lock(paths)

    if config.stages.evaluate and config.stages.report:
        _write_report(paths)
    rows = build_summary_rows(fit_result, evaluation)
    print_summary(rows)


def _write_report(paths: RunPaths) -> None:
    try:
        write_report(build_run_report(Run.open(paths.path)), paths.report)
    except (DataError, ReportError) as error:  # the run is finished without a report
        logger.warning("no report: {}", error)
