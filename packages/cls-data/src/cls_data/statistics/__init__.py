"""Dataset statistics: counts, image sizes, a terminal report, and a figure."""

from cls_data.statistics.dataset import DatasetStatistics
from cls_data.statistics.figure import class_distribution_figure, save_class_distribution
from cls_data.statistics.metadata_slices import MetadataSlices
from cls_data.statistics.table import slices_table, statistics_report

__all__ = [
    "DatasetStatistics",
    "MetadataSlices",
    "class_distribution_figure",
    "save_class_distribution",
    "slices_table",
    "statistics_report",
]
