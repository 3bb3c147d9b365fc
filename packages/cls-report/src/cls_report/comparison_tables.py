"""Print the comparison of two runs, and the summary of seeds. Names are text, never markup."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cls_export.contract.text import escape_control_characters, short_name
from cls_report.reports.evaluation_blocks import display_name
from cls_report.reports.seed_summary import SeedSummary
from cls_report.statistics.comparison import AccuracyDifference, Comparison
from cls_report.statistics.estimates import format_percent, format_points
from cls_report.statistics.paired_tests import SIGNIFICANCE_LEVEL

_MAX_NAME = 200
"""Characters of a name."""


def print_comparison(comparison: Comparison, first: str, second: str, split: str) -> None:
    """Print the verdict, the metrics of both runs, and the significant differences."""
    overall = comparison.overall
    f1 = comparison.macro_f1
    title = f"{overall.images} images of {split}"
    table = _start_table(title, "", first, second, "difference")
    table.add_row(
        "top-1",
        format_percent(overall.first),
        format_percent(overall.second),
        format_points(overall.difference),
    )
    table.add_row("only this run correct", str(overall.only_first), str(overall.only_second), "")
    table.add_row("macro-F1", f"{f1.first:.1%}", f"{f1.second:.1%}", format_points(f1.difference))

    lines = _significant_lines("class", comparison.by_class)
    for key, differences in comparison.by_slice.items():
        lines += _significant_lines(key, differences)
    _print(Text(escape_control_characters(comparison.verdict)), table, *lines)


def _significant_lines(key: str, differences: tuple[AccuracyDifference, ...]) -> list[Text]:
    lines = []
    for each in differences:
        if each.adjusted_p < SIGNIFICANCE_LEVEL:
            difference = format_points(each.difference)
            line = _name(f"{key} {display_name(each.name)}")
            line.append(
                f": {difference} on {each.images} images (adjusted p = {each.adjusted_p:.2g})"
            )
            lines.append(line)
    return lines


def print_seeds(summary: SeedSummary) -> None:
    """Print the metrics of each seed, their mean, and the noise floor."""
    title = f"{len(summary.names)} seeds, {summary.images} images of {summary.split}"
    table = _start_table(title, "run", "seed", "top-1", "macro-F1")
    rows = zip(
        summary.names, summary.seeds, summary.top1.values, summary.macro_f1.values, strict=True
    )
    for name, seed, top1, f1 in rows:
        table.add_row(_name(name), str(seed), f"{top1:.2%}", f"{f1:.4f}")

    lines = [Text(line) for line in summary.describe()]
    _print(table, *lines)


def _start_table(title: str, *headers: str) -> Table:
    table = Table(title=Text(title), title_justify="left")
    for header in headers:
        table.add_column(_name(header))
    return table


def _name(text: str) -> Text:
    """Return a name that rich displays as it is."""
    return Text(short_name(text, _MAX_NAME) if text else "", overflow="fold")


def _print(*items: Table | Text) -> None:
    console = Console()
    with console.capture() as capture:
        for item in items:
            console.print(item)
    # A console exits by itself if the reader of its pipe is gone.
    print(capture.get(), end="")
