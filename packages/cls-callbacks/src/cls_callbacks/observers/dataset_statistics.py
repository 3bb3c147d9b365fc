"""Report the dataset statistics."""

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console

from cls_callbacks.observers.plots import save_plot
from cls_callbacks.trainer_access import get_datamodule, get_run_paths
from cls_data.statistics import class_distribution_figure, statistics_report
from cls_export.contract.files import write_atomically


class DatasetStatisticsWriter(Callback):
    """When `fit` starts, print a table, and write statistics.json and plots/class_distribution.png.

    A resumed training has printed the table before.

    Args:
        max_classes: With more classes, the table lists only the largest and the smallest.
    """

    def __init__(self, max_classes: int = 20) -> None:
        self.max_classes = max_classes

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the table, and write the files."""
        if not trainer.is_global_zero:
            return

        statistics = get_datamodule(trainer).statistics
        if trainer.ckpt_path is None:
            table = statistics_report(statistics, max_classes=self.max_classes)
            Console().print(table)

        path = get_run_paths(trainer).statistics
        content = statistics.model_dump_json(indent=2) + "\n"
        write_atomically(path, content.encode())

        figure = class_distribution_figure(statistics)
        save_plot(trainer, figure, "class_distribution", crop=False)
