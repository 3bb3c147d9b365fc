"""The class distribution as a picture. Needs the extra `figures`."""

import io
import os
from typing import TYPE_CHECKING

from cls_data.errors import DataError
from cls_data.statistics.dataset import DatasetStatistics
from cls_export.contract.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INCHES_PER_CLASS = 0.26
_MOST_INCHES = 60
_MOST_NAMES = 230  # what the widest picture has room for
_INSTALL = 'pip install "cls-data[figures]"'


def draw(statistics: DatasetStatistics, path: str | os.PathLike[str]) -> None:
    """Write a PNG of the rows per class, a panel a split, the largest training class first.

    The scale is logarithmic and each bar carries its count, so that a rare class is read as well as a frequent one;
    a class without a row carries a red 0.

    Raises:
        DataError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DataError(f"a figure needs matplotlib, which is not installed: {_INSTALL}") from error
    splits = list(statistics.counts)
    width = min(_MOST_INCHES, 2 + _INCHES_PER_CLASS * len(statistics.classes))
    # Without pyplot, no window system and no global state is touched.
    figure = Figure(figsize=(max(6, width), 0.8 + 2.4 * len(splits)), layout="constrained")
    _fill(figure, statistics, splits)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    write_atomically(path, content.getvalue())


def _fill(figure: "Figure", statistics: DatasetStatistics, splits: list[str]) -> None:
    names = sorted(statistics.classes, key=lambda name: -statistics.counts["train"][name])
    step = -(-len(names) // _MOST_NAMES)
    figure.suptitle(
        f"{len(names)} classes, imbalance {statistics.imbalance_ratio:.1f}-fold in train"
    )
    panels = figure.subplots(len(splits), sharex=True, squeeze=False)[:, 0]
    for axes, split in zip(panels, splits, strict=True):
        counts = [statistics.counts[split][name] for name in names]
        _draw_split(axes, counts, annotated=step == 1)
        axes.set_ylabel(f"{split}: {statistics.total(split):,} rows")
    labels = [name.replace("$", r"\$") or "(empty)" for name in names[::step]]
    panels[-1].set_xticks(range(0, len(names), step), labels, rotation=90, fontsize=9)


def _draw_split(axes: "Axes", counts: list[int], *, annotated: bool) -> None:
    # Limits before bars: matplotlib warns when it has to find them on a logarithmic axis of zeros.
    axes.set_yscale("log")
    axes.set_ylim(
        0.5, 4 * max(1, *counts)
    )  # room below a bar of 1, and for the upright counts above
    axes.set_xlim(-0.7, len(counts) - 0.3)
    axes.bar(range(len(counts)), counts, width=0.75)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    if annotated:
        for place, count in enumerate(counts):
            axes.annotate(
                str(count),
                (place, max(count, 0.5)),
                (0, 3),
                textcoords="offset points",
                ha="center",
                va="bottom",
                rotation=90,
                fontsize=8,
                color="black" if count else "red",
            )
