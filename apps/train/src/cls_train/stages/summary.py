"""Summarize a finished run: summary.json, the loggers, and the table on the terminal."""

from typing import Any

from cls_callbacks import log_image
from cls_report import Estimate, format_percent
from cls_train.stages.fit import FitResult


def build_summary(fit_result: FitResult, evaluation: dict[str, Any] | None) -> dict[str, Any]:
    """Return the content of summary.json."""
    return {
        "run": fit_result.run.path.name,
        "fit_seconds": fit_result.seconds,
        "train_images_per_second": fit_result.images_per_second,
        "best_score": fit_result.best_score,
        "stopped": fit_result.stopped,
        "warnings": fit_result.warnings,
        "evaluation": evaluation,
    }


def log_evaluation(fit_result: FitResult, evaluation: dict[str, Any]) -> None:
    """Send the metrics and plots of the evaluation process to the loggers."""
    step = evaluation["scored"]["step"]

    values = {}
    for metrics in evaluation["metrics"].values():
        for name, value in metrics.items():
            values[f"best_{name}"] = value
    for each in fit_result.loggers:
        each.log_metrics(values, step)

    for split in evaluation["metrics"]:
        plots = fit_result.run.plots.glob(f"*_{split}.png")
        for plot in sorted(plots):
            log_image(fit_result.loggers, plot, step)


def build_summary_rows(fit_result: FitResult, evaluation: dict[str, Any] | None) -> dict[str, str]:
    """Return the rows of the table on the terminal."""
    run = fit_result.run
    rows = {"run": str(run.path)}
    if evaluation is not None:
        rows |= _evaluation_rows(evaluation)
    elif fit_result.best_score is not None:
        rows[f"best {fit_result.monitor}"] = f"{fit_result.best_score:.4f}"

    if fit_result.stopped is not None:
        rows["training"] = fit_result.stopped
    if fit_result.warnings:
        rows["warnings"] = "\n".join(fit_result.warnings)
    time_label = "fit time (resumed part)" if fit_result.is_resumed else "fit time"
    rows[time_label] = f"{fit_result.seconds:.0f} s"
    if fit_result.images_per_second is not None:
        rows["training speed"] = f"{fit_result.images_per_second:.0f} images/s"

    if evaluation is not None and evaluation["onnx"] is not None:
        difference = evaluation["onnx"]["max_logit_difference"]
        rows["bundle"] = str(run.bundle)
        rows["bundle logits"] = f"within {difference:.1e} of PyTorch"
    if run.report.is_file():
        rows["report"] = str(run.report)
    return rows


def _evaluation_rows(evaluation: dict[str, Any]) -> dict[str, str]:
    rows = {}
    if "test" not in evaluation["metrics"]:
        rows["no test split"] = "results are for valid, which selected the weights"

    for split in evaluation["metrics"]:
        scores = evaluation["scores"][split]
        rows[f"{split} top-1"] = format_percent(Estimate(**scores["top1"]))
        rows[f"{split} macro-F1"] = format_percent(Estimate(**scores["macro_f1"]))

    scored = evaluation["scored"]
    epoch = scored["epoch"] + 1
    score = f"{scored['metric']} {scored['value']:.4f}"
    rows["best weights"] = f"{scored['weights']}, epoch {epoch}, {score}"

    calibration = evaluation["calibration"]
    if calibration is not None:
        before = format_percent(Estimate(**calibration["before"]))
        after = format_percent(Estimate(**calibration["after"]))
        rows["calibration error"] = f"{after}, uncalibrated {before}"

    notes = evaluation.get("confidence_notes", [])
    if notes:
        rows["confidence"] = "\n".join(notes)
    return rows
