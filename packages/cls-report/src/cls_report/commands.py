"""The commands `uv run apps/report` and `uv run apps/compare`."""

import argparse
import functools
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from cls_data import DataError
from cls_export.contract.errors import BundleError
from cls_report.errors import ReportError
from cls_report.page.render import write_report
from cls_report.reports.comparison_report import build_comparison_report
from cls_report.reports.evaluation_blocks import display_name
from cls_report.reports.folds_report import build_folds_report
from cls_report.reports.run_report import build_run_report
from cls_report.reports.seed_summary import SeedSummary, find_runs_of_newest_recipe, summarize_seeds
from cls_report.run_folder import Run, common_split
from cls_report.statistics.comparison import (
    AccuracyDifference,
    Comparison,
    compare,
    pair_predictions,
)
from cls_report.statistics.estimates import format_percent, format_points
from cls_report.statistics.paired_tests import SIGNIFICANCE_LEVEL

EXIT_USER_ERROR = 2


def _exit_on_user_error(command: Callable[[], None]) -> Callable[[], None]:
    """Turn an error that the user can fix into one line on stderr and exit code 2."""

    @functools.wraps(command)
    def wrapped() -> None:
        try:
            command()
        except (ReportError, DataError, BundleError) as error:
            message = f"{type(error).__name__}: {error}"
            print(message, file=sys.stderr)
            sys.exit(EXIT_USER_ERROR)

    return wrapped


@_exit_on_user_error
def report() -> None:
    """Write the reports of runs."""
    options = _report_parser().parse_args()
    runs = [Run.open(folder) for folder in options.runs]
    if options.folds:
        folds_report = build_folds_report(runs)
        write_report(folds_report, options.folds)
        print(options.folds)
        return

    for run in runs:
        path = run.paths.report
        run_report = build_run_report(run)
        write_report(run_report, path)
        print(path)


def _report_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="apps/report",
        description="Write report.html into the folder of each run, or one report of all folds.",
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="run folder, such as runs/NAME"
    )
    parser.add_argument(
        "--folds",
        type=Path,
        metavar="FILE",
        help="pool the predictions of cross-validation folds, find likely label errors, and write "
        "one report to FILE",
    )
    return parser


@_exit_on_user_error
def compare_runs() -> None:
    """Compare two runs, or summarize runs that differ only in their seed."""
    parser = _compare_parser()
    options = parser.parse_args()
    if options.seeds:
        folders = options.runs or find_runs_of_newest_recipe(options.root)
        runs = [Run.open(folder) for folder in folders]
        summary = summarize_seeds(runs, options.split)
        _print_seeds(summary)
        return

    count = len(options.runs)
    if count != 2:
        parser.error(f"expected two runs, got {count}; to summarize several seeds, use --seeds")

    first, second = map(Run.open, options.runs)
    split = options.split or common_split([first, second])
    paired = pair_predictions(
        split,
        first.predictions_for(split),
        second.predictions_for(split),
    )
    comparison = compare(paired, (first.name, second.name))
    _print_comparison(comparison, first.name, second.name, split)

    if options.html:
        report = build_comparison_report(first, second, paired, comparison)
        write_report(report, options.html)
        print(options.html)


def _compare_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="apps/compare",
        description="Compare two runs on the same images, or measure how much runs of one recipe "
        "vary with the seed.",
    )
    parser.add_argument(
        "runs", nargs="*", type=Path, metavar="RUN", help="two run folders, the older one first"
    )
    parser.add_argument(
        "--seeds",
        action="store_true",
        help="summarize runs that differ only in their seed; without RUN, all runs in --root with "
        "the recipe of the newest one",
    )
    parser.add_argument(
        "--root", type=Path, default=Path("runs"), help="folder of runs (default: runs)"
    )
    parser.add_argument(
        "--split",
        choices=("valid", "test"),
        help="split to compare on (default: test if all runs have it, otherwise valid)",
    )
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="also write the comparison as an HTML report"
    )
    return parser


def _print_comparison(comparison: Comparison, first: str, second: str, split: str) -> None:
    console = Console()
    console.print(comparison.verdict, markup=False, highlight=False)

    overall = comparison.overall
    f1 = comparison.macro_f1
    title = f"{overall.images} images of {split}"
    table = Table("", first, second, "difference", title=title, title_justify="left")
    table.add_row(
        "top-1",
        format_percent(overall.first),
        format_percent(overall.second),
        format_points(overall.difference),
    )
    table.add_row("only this run correct", str(overall.only_first), str(overall.only_second), "")
    table.add_row("macro-F1", f"{f1.first:.1%}", f"{f1.second:.1%}", format_points(f1.difference))
    console.print(table)

    _print_significant(console, "class", comparison.by_class)
    for key, differences in comparison.by_slice.items():
        _print_significant(console, key, differences)


def _print_significant(
    console: Console, key: str, differences: tuple[AccuracyDifference, ...]
) -> None:
    for each in differences:
        if each.adjusted_p >= SIGNIFICANCE_LEVEL:
            continue

        name = display_name(each.name)
        difference = format_points(each.difference)
        text = (
            f"{key} {name}: {difference} on {each.images} images "
            f"(adjusted p = {each.adjusted_p:.2g})"
        )
        console.print(text, markup=False, highlight=False)


def _print_seeds(summary: SeedSummary) -> None:
    console = Console()
    title = f"{len(summary.names)} seeds, {summary.images} images of {summary.split}"
    table = Table("run", "seed", "top-1", "macro-F1", title=title, title_justify="left")
    rows = zip(
        summary.names, summary.seeds, summary.top1.values, summary.macro_f1.values, strict=True
    )
    for name, seed, top1, f1 in rows:
        table.add_row(name, str(seed), f"{top1:.2%}", f"{f1:.4f}")

    console.print(table)
    for line in summary.describe():
        console.print(line, markup=False, highlight=False)
