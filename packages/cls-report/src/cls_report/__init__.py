"""Evaluate image classifiers with confidence intervals, compare runs, and write HTML reports."""

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
from cls_report.statistics.calibration_fitting import FITS, cross_fit, fit_temperature, fit_vector
from cls_report.statistics.comparison import compare, pair_predictions
from cls_report.statistics.estimates import Estimate, format_percent, format_points
from cls_report.statistics.evaluated_predictions import EvaluatedPredictions
from cls_report.statistics.evaluation import Evaluation
from cls_report.statistics.intervals import Clusters, proportion_interval, wilson_interval
from cls_report.statistics.rejection import choose_reject, risk_coverage
from cls_report.statistics.scores import EvaluationScores, compute_scores

__all__ = [
    "FITS",
    "CalibrationError",
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
    "pair_predictions",
    "proportion_interval",
    "risk_coverage",
    "wilson_interval",
    "write_report",
]
