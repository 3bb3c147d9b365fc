"""The commands `uv run apps/report` and `uv run apps/compare`.

They import what they need after their options are parsed, so that `--help` is immediate.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from cls_data.errors import DataError
from cls_export.contract.arguments import add_choice, add_version
from cls_export.contract.commands import EXIT_CODES, run_command
from cls_export.contract.errors import BundleError
from cls_report.errors import CalibrationError, ReportError

_WRONG_INPUT = (BundleError, CalibrationError, DataError, ReportError)

_REPORT_EXAMPLES = """\
examples:
  uv run apps/report runs/NAME
  uv run --extra label-errors apps/report runs/FOLD0 runs/FOLD1 --folds folds.html
"""

_COMPARE_EXAMPLES = """\
examples:
  uv run apps/compare runs/OLD runs/NEW
  uv run apps/compare runs/OLD runs/NEW --html comparison.html
  uv run apps/compare --seeds
"""


def report(arguments: Sequence[str] | None = None) -> int:
    """Write the reports of runs, and return the exit code. The default is `sys.argv`."""
    return run_command("apps/report", lambda: _report(arguments), wrong_input=_WRONG_INPUT)


def _report(arguments: Sequence[str] | None) -> None:
    options = report_parser().parse_args(arguments)
    from cls_report.page.render import write_report
    from cls_report.reports.folds_report import build_folds_report
    from cls_report.reports.run_report import build_run_report
    from cls_report.run_folder import Run

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


def report_parser() -> argparse.ArgumentParser:
    """Return the parser of `apps/report`."""
    parser = argparse.ArgumentParser(
        prog="apps/report",
        description="Write report.html into the folder of each run, or one report of all folds.",
        epilog=f"{_REPORT_EXAMPLES}\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_version(parser, "cls-report")
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


def compare_runs(arguments: Sequence[str] | None = None) -> int:
    """Compare two runs, or summarize runs that differ only in their seed; return the exit code.

    The default of the arguments is `sys.argv`.
    """
    return run_command("apps/compare", lambda: _compare(arguments), wrong_input=_WRONG_INPUT)


def _compare(arguments: Sequence[str] | None) -> None:
    parser = compare_parser()
    options = parser.parse_args(arguments)
    count = len(options.runs)
    if options.seeds and options.html:
        parser.error("--html needs two runs, and --seeds has no report")
    if not options.seeds and count != 2:
        parser.error(f"expected two runs, got {count}; to summarize several seeds, use --seeds")

    if options.seeds:
        _compare_seeds(options)
    else:
        _compare_two(options)


def _compare_seeds(options: argparse.Namespace) -> None:
    from cls_report.comparison_tables import print_seeds
    from cls_report.reports.seed_summary import find_runs_of_newest_recipe, summarize_seeds
    from cls_report.run_folder import Run

    folders = options.runs or find_runs_of_newest_recipe(options.root)
    runs = [Run.open(folder) for folder in folders]
    summary = summarize_seeds(runs, options.split)
    print_seeds(summary)


def _compare_two(options: argparse.Namespace) -> None:
    from cls_report.comparison_tables import print_comparison
    from cls_report.page.render import write_report
    from cls_report.reports.comparison_report import build_comparison_report
    from cls_report.run_folder import Run, common_split
    from cls_report.statistics.comparison import compare, pair_predictions

    first, second = map(Run.open, options.runs)
    split = options.split or common_split([first, second])
    paired = pair_predictions(
        split,
        first.predictions_for(split),
        second.predictions_for(split),
        commands=(first.paths.evaluate_command, second.paths.evaluate_command),
    )
    comparison = compare(paired, (first.name, second.name))
    print_comparison(comparison, first.name, second.name, split)

    if options.html:
        page = build_comparison_report(first, second, paired, comparison)
        write_report(page, options.html)
        print(options.html)


def compare_parser() -> argparse.ArgumentParser:
    """Return the parser of `apps/compare`."""
    parser = argparse.ArgumentParser(
        prog="apps/compare",
        description="Compare two runs on the same images, or measure how much runs of one recipe "
        "vary with the seed.",
        epilog=f"{_COMPARE_EXAMPLES}\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_version(parser, "cls-report")
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
    add_choice(
        parser,
        "--split",
        ("valid", "test"),
        help="split to compare on (default: test if all runs have it, otherwise valid)",
    )
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="also write the comparison as an HTML report"
    )
    return parser
