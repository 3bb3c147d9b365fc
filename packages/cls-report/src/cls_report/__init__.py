"""Evaluate image classifiers with confidence intervals, compare runs, and write HTML reports.

Names are imported on first use, so that the commands print their help at once.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cls_report.errors import CalibrationError, ReportError
    from cls_report.page.blocks import (
        Chart,
        Code,
        Column,
        ConfusionMatrix,
        Facts,
        Gallery,
        GalleryItem,
        Report,
        Score,
        Scores,
        Section,
        Series,
        Table,
        Text,
    )
    from cls_report.page.render import write_report
    from cls_report.reports.run_report import build_run_report
    from cls_report.run_folder import Run
    from cls_report.statistics.calibration import estimate_calibration_error
    from cls_report.statistics.calibration_fitting import (
        FITS,
        cross_fit,
        fit_temperature,
        fit_vector,
    )
    from cls_report.statistics.calibration_gain import CalibrationGain, measure_gain
    from cls_report.statistics.comparison import compare, pair_predictions
    from cls_report.statistics.estimates import Estimate, format_percent, format_points
    from cls_report.statistics.evaluated_predictions import EvaluatedPredictions
    from cls_report.statistics.evaluation import Evaluation
    from cls_report.statistics.intervals import Clusters, proportion_interval, wilson_interval
    from cls_report.statistics.rejection import RejectChoice, choose_reject, risk_coverage
    from cls_report.statistics.scores import EvaluationScores, compute_scores

_MODULES = {
    "FITS": "statistics.calibration_fitting",
    "CalibrationError": "errors",
    "CalibrationGain": "statistics.calibration_gain",
    "Chart": "page.blocks",
    "Clusters": "statistics.intervals",
    "Code": "page.blocks",
    "Column": "page.blocks",
    "ConfusionMatrix": "page.blocks",
    "Estimate": "statistics.estimates",
    "EvaluatedPredictions": "statistics.evaluated_predictions",
    "Evaluation": "statistics.evaluation",
    "EvaluationScores": "statistics.scores",
    "Facts": "page.blocks",
    "Gallery": "page.blocks",
    "GalleryItem": "page.blocks",
    "RejectChoice": "statistics.rejection",
    "Report": "page.blocks",
    "ReportError": "errors",
    "Run": "run_folder",
    "Score": "page.blocks",
    "Scores": "page.blocks",
    "Section": "page.blocks",
    "Series": "page.blocks",
    "Table": "page.blocks",
    "Text": "page.blocks",
    "build_run_report": "reports.run_report",
    "choose_reject": "statistics.rejection",
    "compare": "statistics.comparison",
    "compute_scores": "statistics.scores",
    "cross_fit": "statistics.calibration_fitting",
    "estimate_calibration_error": "statistics.calibration",
    "fit_temperature": "statistics.calibration_fitting",
    "fit_vector": "statistics.calibration_fitting",
    "format_percent": "statistics.estimates",
    "format_points": "statistics.estimates",
    "measure_gain": "statistics.calibration_gain",
    "pair_predictions": "statistics.comparison",
    "proportion_interval": "statistics.intervals",
    "risk_coverage": "statistics.rejection",
    "wilson_interval": "statistics.intervals",
    "write_report": "page.render",
}
"""The module of each public name."""

__all__ = [
    "FITS",
    "CalibrationError",
    "CalibrationGain",
    "Chart",
    "Clusters",
    "Code",
    "Column",
    "ConfusionMatrix",
    "Estimate",
    "EvaluatedPredictions",
    "Evaluation",
    "EvaluationScores",
    "Facts",
    "Gallery",
    "GalleryItem",
    "RejectChoice",
    "Report",
    "ReportError",
    "Run",
    "Score",
    "Scores",
    "Section",
    "Series",
    "Table",
    "Text",
    "build_run_report",
    "choose_reject",
    "compare",
    "compute_scores",
    "cross_fit",
    "estimate_calibration_error",
    "fit_temperature",
    "fit_vector",
    "format_percent",
    "format_points",
    "measure_gain",
    "pair_predictions",
    "proportion_interval",
    "risk_coverage",
    "wilson_interval",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_MODULES[name]}")
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
