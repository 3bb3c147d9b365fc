"""Figure of the class distribution. Needs matplotlib: `pip install "cls-data[figures]"`."""

import io
import os
import warnings
from typing import TYPE_CHECKING

from cls_data.errors import DataError
from cls_data.gate.text import count_classes
from cls_data.statistics.dataset import DatasetStatistics
from cls_export.contract.files import write_atomically
from cls_export.contract.text import count_columns, short_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INCHES_PER_CLASS = 0.26
_INCHES_PER_CHARACTER = 0.09
_MAX_INCHES = 60
_LEFT = 0.9
_RIGHT = 0.15
_TOP = 0.5
_PANEL = 2.4  # height of the plot of one split, in inches
_MAX_NAMES = 230  # tick labels that fit into the widest figure
_MAX_CHARACTERS = 40  # characters
_DPI = 110


def class_distribution_figure(statistics: DatasetStatistics) -> "Figure":
    """Plot the rows per class, one panel per split, largest training class first.

    The axis is logarithmic and each bar shows its count, so rare classes stay readable. A class
    without a row has a red 0. The figure is built without pyplot and touches no global state.

    Raises:
        DataError: Matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DataError(
            'Figures need matplotlib, which is not installed. Run: pip install "cls-data[figures]"'
        ) from error

    train_counts = statistics.counts["train"]
    names = sorted(statistics.classes, key=lambda name: -train_counts[name])
    splits = list(statistics.counts)

    step = -(-len(names) // _MAX_NAMES)
    labels = [short_name(name, _MAX_CHARACTERS) for name in names[::step]]
    longest = max(count_columns(label) for label in labels)

    width = min(max(6, 2 + _INCHES_PER_CLASS * len(names)), _MAX_INCHES)
    bottom = 0.25 + _INCHES_PER_CHARACTER * longest
    height = _TOP + _PANEL * len(splits) + bottom
    figure = Figure(figsize=(width, height), dpi=_DPI)
    figure.suptitle(
        f"{count_classes(len(names))}, train imbalance {statistics.imbalance_ratio:.1f}:1"
    )

    # A layout engine would draw the figure twice, to find margins that are known.
    margins = {
        "left": _LEFT / width,
        "right": 1 - _RIGHT / width,
        "bottom": bottom / height,
        "top": 1 - _TOP / height,
        "hspace": 0.1,
    }
    panels = figure.subplots(len(splits), sharex=True, squeeze=False, gridspec_kw=margins)[:, 0]
    for axes, split in zip(panels, splits, strict=True):
        counts = [statistics.counts[split][name] for name in names]
        _plot_split(axes, counts, annotate=step == 1)
        axes.set_ylabel(f"{split}: {statistics.total(split):,} rows")

    ticks = range(0, len(names), step)
    # Matplotlib would read text between dollar signs as a formula.
    panels[-1].set_xticks(ticks, labels, rotation=90, fontsize=9, parse_math=False)
    return figure


def save_class_distribution(statistics: DatasetStatistics, path: str | os.PathLike[str]) -> None:
    """Write the figure of `class_distribution_figure` as a PNG."""
    figure = class_distribution_figure(statistics)
    content = io.BytesIO()
    with warnings.catch_warnings():
        # A class name may have characters that the font lacks; they become boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(content, format="png", dpi=_DPI)
    write_atomically(path, content.getvalue())


def _plot_split(axes: "Axes", counts: list[int], *, annotate: bool) -> None:
    # Limits before bars: matplotlib warns when it autoscales a logarithmic axis of zeros.
    axes.set_yscale("log")
    # Leaves room below a bar of 1 and above the largest bar for its rotated count.
    axes.set_ylim(0.5, 4 * max(1, *counts))
    axes.set_xlim(-0.7, len(counts) - 0.3)

    axes.bar(range(len(counts)), counts, width=0.75)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    if not annotate:
        return

    for position, count in enumerate(counts):
        axes.annotate(
            str(count),
            (position, max(count, 0.5)),
            (0, 3),
            textcoords="offset points",
            ha="center",
            va="bottom",
            rotation=90,
            fontsize=8,
            color="black" if count else "red",
        )
