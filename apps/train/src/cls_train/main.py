"""The training command: compose the configuration, train, evaluate, export, and report."""

import os
import sys
from pathlib import Path

import hydra
from loguru import logger
from omegaconf import DictConfig

from cls_data import DataError
from cls_export.contract.run_layout import RunPaths
from cls_report import ReportError, Run, build_run_report, write_report
from cls_train.composition.command_line import check_command_line
from cls_train.composition.config import RunConfig
from cls_train.console import exit_on_user_error, print_summary
from cls_train.logs import configure_logging
from cls_train.run_folder.run_lock import release_lock
from cls_train.run_folder.run_paths import write_json
from cls_train.stages import evaluation_process
from cls_train.stages.evaluation_process import evaluate_in_clean_process
from cls_train.stages.fit import fit
from cls_train.stages.summary import build_summary, build_summary_rows, log_evaluation

MAX_EPOCHS_WITH_WAITING_PROCESS = 10
"""Longer runs start the evaluation process after training: a waiting process takes 0.6 GB."""


def main(config_dir: Path) -> None:
    """Run the command line with the configuration in `config_dir`."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises errors instead of printing them

    # Hydra's parser accepts -m only before the overrides.
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda argument: argument not in ("-m", "--multirun"))

    @exit_on_user_error
    def run() -> None:
        check_command_line(sys.argv[1:], config_dir)
        decorate = hydra.main(version_base="1.3", config_path=str(config_dir), config_name="config")
        decorate(_task)()

    try:
        run()
    finally:
        evaluation_process.stop()


def _task(composed: DictConfig) -> None:
    # Errors are handled inside the task, because Hydra would print a line before them.
    exit_on_user_error(lambda: _run(composed))()


def _run(composed: DictConfig) -> None:
    configure_logging()
    config = RunConfig.from_hydra(composed)
    if config.stages.export and not config.stages.evaluate:
        logger.warning("stages.export has no effect without stages.evaluate")

    epochs = config.trainer.get("max_epochs")
    if isinstance(epochs, int) and epochs > MAX_EPOCHS_WITH_WAITING_PROCESS:
        evaluation_process.stop()

    fit_result = fit(config)
    run = fit_result.run
    evaluation = None
    if config.stages.evaluate:
        evaluation = evaluate_in_clean_process(run, config.allow_targets)
        log_evaluation(fit_result, evaluation)

    write_json(run.summary, build_summary(fit_result, evaluation))
    release_lock(run)

    if config.stages.evaluate and config.stages.report:
        _write_report(run)
    rows = build_summary_rows(fit_result, evaluation)
    print_summary(rows)


def _write_report(run: RunPaths) -> None:
    try:
        write_report(build_run_report(Run.open(run.path)), run.report)
    except (DataError, ReportError) as error:  # the run is finished without a report
        logger.warning("no report: {}", error)
