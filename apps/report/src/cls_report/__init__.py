"""Evaluation that can be believed, and one page that shows it."""

from cls_report.content import (
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

__all__ = [
    "Chart", "Code", "Column", "Confusion", "Estimate", "Facts", "Gallery", "Report", "Score", "Scores", "Section",
    "Series", "Shown", "Table", "Text",
]  # fmt: skip
