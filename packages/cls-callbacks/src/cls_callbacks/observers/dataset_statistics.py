"""What is about to be trained on, said before it starts."""

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from matplotlib.figure import Figure
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cls_callbacks.datamodule_access import get_datamodule
from cls_callbacks.observers.figures import save_picture, tick_names
from cls_data import DatasetStatistics


class DatasetStatisticsCallback(Callback):
    """Prints a table when `fit` starts; writes statistics.json and plots/class_distribution.png.

    Args:
        rows: most classes to list in the table; of more, the largest and the smallest are shown.
    """

    def __init__(self, rows: int = 20) -> None:
        self.rows = rows

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report."""
        if not trainer.is_global_zero:
            return
        data = get_datamodule(trainer)
        statistics = data.statistics
        Console().print(statistics_table(statistics, self.rows))
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "statistics.json").write_text(
            statistics.model_dump_json(indent=2) + "\n", encoding="utf-8"
        )
        save_picture(trainer, distribution_figure(statistics), "class_distribution")


def statistics_table(statistics: DatasetStatistics, rows: int) -> Table:
    """Return a table of counts per class and split, image sizes below."""
    splits = list(statistics.counts)
    table = Table(
        title=f"{len(statistics.classes)} classes, imbalance {statistics.imbalance_ratio:.1f}-fold in train"
    )
    table.add_column("class")
    for split in splits:
        table.add_column(split, justify="right")
    by_size = sorted(statistics.classes, key=lambda name: -statistics.counts["train"][name])
    half = max(1, rows // 2)
    shown = by_size if len(by_size) <= rows else [*by_size[:half], None, *by_size[-half:]]
    for name in shown:
        if name is None:
            table.add_row("…", *["…"] * len(splits))
        else:
            table.add_row(
                escape(repr(name)), *[str(statistics.counts[split][name]) for split in splits]
            )
    table.add_section()
    table.add_row("all", *[str(statistics.total(split)) for split in splits])
    table.add_row("classes missing", *[str(len(statistics.missing(split))) for split in splits])
    sizes = [statistics.sizes[split] for split in splits]
    table.add_row("median size, px", *[f"{size.width[1]:g}x{size.height[1]:g}" for size in sizes])
    return table


def distribution_figure(statistics: DatasetStatistics) -> Figure:
    """Draw the counts of each class, largest training class first, a bar a split, on a logarithmic scale."""
    names = sorted(statistics.classes, key=lambda name: -statistics.counts["train"][name])
    splits = list(statistics.counts)
    figure = Figure(figsize=(min(30, 3 + 0.28 * len(names)), 4))
    axes = figure.add_subplot()
    width = 0.8 / len(splits)
    for number, split in enumerate(splits):
        places = [index + (number - (len(splits) - 1) / 2) * width for index in range(len(names))]
        axes.bar(places, [statistics.counts[split][name] for name in names], width, label=split)
    step = max(1, len(names) // 80)
    axes.set_xticks(range(0, len(names), step), tick_names(names)[::step], rotation=90, fontsize=8)
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.8)  # a class of one image still shows a bar
    axes.set_ylabel("images")
    axes.set_title(
        f"{len(names)} classes, imbalance {statistics.imbalance_ratio:.1f}-fold in train"
    )
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    axes.margins(x=0.01)
    return figure
