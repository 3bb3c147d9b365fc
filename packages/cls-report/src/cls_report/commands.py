"""`uv run apps/report` and `uv run apps/compare`: read runs, write a page, say the sentence that matters."""

import argparse
import functools
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from cls_data import DataError, Predictions
from cls_export import BundleError
from cls_report.errors import ReportError
from cls_report.page.render import write_report
from cls_report.reports.comparison_report import comparison_report
from cls_report.reports.folds_report import folds_report
from cls_report.reports.run_report import run_report
from cls_report.run_folder import Run
from cls_report.statistics.comparison import Comparison, Difference, compare
from cls_report.statistics.intervals import in_points, in_words
from cls_report.statistics.paired_tests import SIGNIFICANT
from cls_report.statistics.pairing import pair
from cls_report.statistics.seeds import Seeds, across_seeds, runs_of_one_recipe

EXIT_USER_ERROR = 2
FILE_NAME = "report.html"


def _says_errors(command: Callable[[], None]) -> Callable[[], None]:
    @functools.wraps(command)
    def wrapped() -> None:
        try:
            command()
        except (ReportError, DataError, BundleError) as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            sys.exit(EXIT_USER_ERROR)

    return wrapped


@_says_errors
def report() -> None:
    """Make the reports of runs anew."""
    parser = argparse.ArgumentParser(
        prog="apps/report", description="Write report.html into each run's folder."
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="a run's folder, such as runs/NAME"
    )
    parser.add_argument(
        "--folds",
        type=Path,
        metavar="FILE",
        help="the runs are all folds of one data set: write one "
        "page of their pooled answers there, with likely label errors",
    )
    options = parser.parse_args()
    if options.folds:
        write_report(folds_report([Run.at(folder) for folder in options.runs]), options.folds)
        print(options.folds)
        return
    for folder in options.runs:
        write_report(run_report(Run.at(folder)), folder / FILE_NAME)
        print(folder / FILE_NAME)


@_says_errors
def compare_runs() -> None:
    """Compare two runs on the same images, or many of one recipe across seeds."""
    parser = argparse.ArgumentParser(
        prog="apps/compare",
        description="Whether two runs differ, asked of the same images; or how far runs of one recipe lie apart.",
    )
    parser.add_argument(
        "runs", nargs="*", type=Path, metavar="RUN", help="folders: two runs, the old one first"
    )
    parser.add_argument(
        "--seeds",
        action="store_true",
        help="the runs differ in nothing but their seed; "
        "without folders, those of the newest run's recipe in --root",
    )
    parser.add_argument(
        "--root", type=Path, default=Path("runs"), help="folder of runs (default: runs)"
    )
    parser.add_argument(
        "--split",
        choices=("valid", "test"),
        help="default: test where both runs have it, else valid",
    )
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="write the comparison as a page, too"
    )
    options = parser.parse_args()
    if options.seeds:
        folders = options.runs or runs_of_one_recipe(options.root)
        _print_seeds(across_seeds([Run.at(folder) for folder in folders], options.split))
        return
    if len(options.runs) != 2:
        parser.error(
            f"expected two runs, got {len(options.runs)}; several seeds of one recipe take --seeds"
        )
    first, second = (Run.at(folder) for folder in options.runs)
    split = options.split or common_split(first, second)
    both = pair(*(_of(run, split) for run in (first, second)))
    comparison = compare(both, (first.name, second.name))
    _print_comparison(comparison, first.name, second.name, split)
    if options.html:
        write_report(comparison_report(first, second, split, both, comparison), options.html)
        print(options.html)


def common_split(first: Run, second: Run) -> str:
    """Return test where both runs were evaluated on it, else valid."""
    return "test" if "test" in first.predictions and "test" in second.predictions else "valid"


def _of(run: Run, split: str) -> Predictions:
    if split not in run.predictions:
        raise ReportError(
            f"{run.path}: the run was not evaluated on {split}, only on {', '.join(run.predictions)}"
        )
    return run.predictions[split]


def _print_comparison(comparison: Comparison, first: str, second: str, split: str) -> None:
    console = Console()
    console.print(comparison.verdict, markup=False, highlight=False)
    overall = comparison.overall
    table = Table(title=f"{overall.images} images of {split}", title_justify="left")
    for head in ("", first, second, "difference"):
        table.add_column(head)
    table.add_row(
        "top-1", in_words(overall.first), in_words(overall.second), in_points(overall.difference)
    )
    table.add_row("right alone", str(overall.only_first), str(overall.only_second), "")
    f1 = comparison.macro_f1
    table.add_row("macro-F1", f"{f1.first:.1%}", f"{f1.second:.1%}", in_points(f1.difference))
    console.print(table)
    parts = [("class", each) for each in comparison.by_class]
    parts += [(key, each) for key, found in comparison.by_slice.items() for each in found]
    for kind, each in parts:
        if each.adjusted_p < SIGNIFICANT:
            console.print(
                f"{kind} {each.name or '(empty)'}: {_apart(each)}", markup=False, highlight=False
            )


def _apart(each: Difference) -> str:
    return f"{in_points(each.difference)} on {each.images} images, p = {each.adjusted_p:.2g} for all such parts together"


def _print_seeds(seeds: Seeds) -> None:
    console = Console()
    table = Table(
        title=f"{len(seeds.names)} seeds, {seeds.images} images of {seeds.split}",
        title_justify="left",
    )
    for head in ("run", "seed", "top-1", "macro-F1"):
        table.add_column(head)
    for name, seed, top1, f1 in zip(
        seeds.names, seeds.seeds, seeds.top1.values, seeds.macro_f1.values, strict=True
    ):
        table.add_row(name, str(seed), f"{top1:.2%}", f"{f1:.4f}")
    console.print(table)
    for line in seeds.sentences():
        console.print(line, markup=False, highlight=False)
