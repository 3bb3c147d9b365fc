"""`uv run apps/train`: compose, fit here, evaluate and export in a clean process, say what came of it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import hydra
from loguru import logger
from omegaconf import DictConfig

from cls_callbacks import log_picture
from cls_data import DataError
from cls_report import Estimate, ReportError, Run, in_words, run_report, write_report
from cls_train.composition.command_line import check_command_line
from cls_train.composition.config import RunConfig
from cls_train.console import exit_on_user_error, print_summary
from cls_train.errors import RunError
from cls_train.logs import set_up_logs
from cls_train.run_folder import RunFolder
from cls_train.stages.fit import FitResult, fit


def main(config_dir: Path) -> None:
    """Run the command line; `config_dir` holds config.yaml and the groups."""
    os.environ["HYDRA_FULL_ERROR"] = (
        "1"  # errors reach us, instead of being printed and turned into an exit
    )

    # Wherever -m stands: Hydra's parser stumbles over a flag between overrides.
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda argument: argument not in ("-m", "--multirun"))

    @exit_on_user_error
    def run() -> None:
        check_command_line(sys.argv[1:], config_dir)
        hydra.main(version_base="1.3", config_path=str(config_dir), config_name="config")(_task)()

    run()


def _task(composed: DictConfig) -> None:
    # Here and not only outside: Hydra would print a line of its own before an error's.
    exit_on_user_error(lambda: _run(composed))()


def _run(composed: DictConfig) -> None:
    set_up_logs()
    config = RunConfig.from_hydra(composed)
    if config.stages.export and not config.stages.evaluate:
        logger.warning(
            "stages.export has no effect without stages.evaluate, which proves what is exported"
        )
    fitted = fit(config)
    evaluation = _evaluate_in_a_clean_process(fitted) if config.stages.evaluate else None
    if evaluation is not None:
        _tell_loggers(fitted, evaluation)
    summary = _summary(fitted, evaluation)
    fitted.folder.write_json(fitted.folder.summary, summary)
    fitted.folder.release()
    if evaluation is not None and config.stages.report:
        _write_report(fitted.folder)
    print_summary(_rows(fitted, evaluation))


def _evaluate_in_a_clean_process(fitted: FitResult) -> dict[str, Any]:
    folder = fitted.folder
    # -P: with -m alone, a statistics.py in the current folder would stand in for the standard library's.
    child = subprocess.run(
        [sys.executable, "-P", "-m", "cls_train.stages.evaluate", str(folder.path)], check=False
    )
    if child.returncode != 0:
        raise RunError(
            f"the evaluation of {folder.best} failed (see above), so the run is not finished. "
            f"When the cause is mended, repeat the command with run.name={folder.path.name}: it goes on from here"
        )
    evaluation: dict[str, Any] = json.loads(folder.evaluation.read_bytes())
    return evaluation


def _write_report(folder: RunFolder) -> None:
    try:
        write_report(run_report(Run.at(folder.path)), folder.report)
    except (DataError, ReportError) as error:  # the run is finished all the same
        logger.warning("no report: {}", error)


def _tell_loggers(fitted: FitResult, evaluation: dict[str, Any]) -> None:
    """Log what the clean process, which has no loggers, found of the best weights and drew."""
    step = evaluation["scored"]["step"]
    values = {
        f"best_{name}": value
        for split in evaluation["metrics"].values()
        for name, value in split.items()
    }
    for each in fitted.loggers:
        each.log_metrics(values, step)
    for split in evaluation["metrics"]:
        for picture in sorted(fitted.folder.plots.glob(f"*_{split}.png")):
            log_picture(fitted.loggers, picture, step)
    for each in fitted.loggers:
        each.finalize("success")


def _summary(fitted: FitResult, evaluation: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "run": fitted.folder.path.name,
        "fit_seconds": fitted.seconds,
        "train_images_per_second": fitted.images_per_second,
        "best_score": fitted.best_score,
        "warnings": fitted.warnings,
        "evaluation": evaluation,
    }


def _rows(fitted: FitResult, evaluation: dict[str, Any] | None) -> dict[str, str]:
    rows = {"run": str(fitted.folder.path)}
    if evaluation is not None:
        metrics = evaluation["metrics"]
        if "test" not in metrics:
            rows["no test split"] = "figures are of valid, by which the weights were chosen"
        for split in metrics:
            for title, name in (("top-1", "top1"), ("macro-F1", "macro_f1")):
                rows[f"{split} {title}"] = in_words(Estimate(**evaluation["scores"][split][name]))
        scored = evaluation["scored"]
        rows["best weights"] = (
            f"{scored['weights']}, epoch {scored['epoch'] + 1}, {scored['metric']} {scored['value']:.4f}"
        )
        if (calibration := evaluation["calibration"]) is not None:
            before, after = (
                in_words(Estimate(**calibration[name])) for name in ("before", "after")
            )
            rows["calibration error"] = f"{after}, uncalibrated {before}"
    if fitted.warnings:
        rows["warnings"] = "\n".join(fitted.warnings)
    rows["fit time" if not fitted.resumed else "fit time, resumed part"] = f"{fitted.seconds:.0f} s"
    if fitted.images_per_second is not None:
        rows["training speed"] = f"{fitted.images_per_second:.0f} images/s"
    if evaluation is not None and evaluation["onnx"] is not None:
        rows["bundle"] = str(fitted.folder.bundle)
        rows["bundle's logits"] = (
            f"within {evaluation['onnx']['max_logit_difference']:.1e} of PyTorch's"
        )
    if fitted.folder.report.is_file():
        rows["report"] = str(fitted.folder.report)
    return rows
