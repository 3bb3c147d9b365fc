"""Evaluation that can be believed, and one page that shows it."""

from cls_report.errors import ReportError
from cls_report.page.blocks import (
    Chart,
    Code,
    Column,
    Confusion,
    Estimate,
    Facts,
    Gallery,
    Report,
    Score,
    Scores,
    Section,
    Series,
    Shown,
    Table,
    Text,
)
from cls_report.page.render import write_report
from cls_report.reports.run_report import run_report
from cls_report.run_folder import Run
from cls_report.statistics.calibration import calibration_error
from cls_report.statistics.evaluated import Answers
from cls_report.statistics.intervals import Clusters, in_words
from cls_report.statistics.scores import EvaluationScores, score

__all__ = [
    "Answers",
    "Chart",
    "Clusters",
    "Code",
    "Column",
    "Confusion",
    "Estimate",
    "EvaluationScores",
    "Facts",
    "Gallery",
    "Report",
    "ReportError",
    "Run",
    "Score",
    "Scores",
    "Section",
    "Series",
    "Shown",
    "Table",
    "Text",
    "calibration_error",
    "in_words",
    "run_report",
    "score",
    "write_report",
]
