"""`cls-data check`: run the data gate."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from cls_data.cli.options import (
    MAX_WORKERS,
    add_annotations_option,
    add_layout_option,
    add_quarantine_option,
    create_preprocessing,
    describe,
    integer,
    load_quarantine,
    path,
    refuse_annotations_of_folders,
)
from cls_data.cli.output import print_line, print_renderable
from cls_data.errors import DataError
from cls_data.gate import GateConfig, check
from cls_data.gate.report import draw_findings, render_table, write_report_json
from cls_data.gate.text import pluralize
from cls_export.contract.decoding import DEFAULT_MAX_PIXELS, LARGEST_MAX_PIXELS
from cls_export.contract.errors import format_validation_error
from cls_export.contract.files import read_bytes
from cls_export.contract.suggestions import did_you_mean

_SIDE = 64  # px; the rules look at the decoded image before it is resized
_MAX_CONFIG_BYTES = 1_000_000

_EXAMPLES = """
cls-data check photos
cls-data check photos --set imbalance=off --pictures findings
cls-data check photos --quarantine leave-out.jsonl
"""
_EXIT_CODES = (
    "Exit codes: 0 success, 1 a rule with the policy `error` has findings or the work failed,\n"
    "2 wrong input, 130 Ctrl-C, 143 terminated."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `cls-data check`."""
    describe(parser, _EXAMPLES, "Rows and images are never changed.", exit_codes=_EXIT_CODES)
    add_annotations_option(parser)
    add_layout_option(parser)
    add_quarantine_option(parser)
    text = "read policies and thresholds (see cls_data.GateConfig) from a YAML file"
    parser.add_argument("--config", metavar="FILE", type=path, help=text)
    text = "override one policy or threshold, such as imbalance=off; can be repeated"
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help=text)
    text = "accept images of up to N pixels, as preprocessing.max_pixels of a run (default: {})"
    parser.add_argument(
        "--max-pixels",
        metavar="N",
        type=integer(1, LARGEST_MAX_PIXELS),
        default=DEFAULT_MAX_PIXELS,
        help=text.format(DEFAULT_MAX_PIXELS),
    )
    text = "write a list of the rows to leave out, for --without and data.quarantine"
    parser.add_argument("--quarantine", metavar="FILE", type=path, help=text)
    text = "write all findings to a JSON file"
    parser.add_argument("--json", metavar="FILE", type=path, help=text)
    text = "draw the worst findings of each rule as FOLDER/RULE.png"
    parser.add_argument("--pictures", metavar="FOLDER", type=path, help=text)
    text = "number of processes that decode images (default: all cores)"
    cores = os.cpu_count() or 1
    workers = integer(1, MAX_WORKERS)
    parser.add_argument("--workers", metavar="N", type=workers, default=cores, help=text)


def run(options: argparse.Namespace) -> int:
    """Run the command; return 1 if the data failed."""
    if options.quarantine and options.without:
        raise DataError(
            "--quarantine cannot be combined with --without: the new list would lack the rows "
            "that the old one contains; drop one of them"
        )
    refuse_annotations_of_folders(options)
    report = check(
        options.root,
        create_preprocessing(_SIDE, max_pixels=options.max_pixels),
        load_gate_config(options.config, options.set),
        annotations=options.annotations,
        quarantine=load_quarantine(options),
        layout=options.layout,
        workers=options.workers,
        progress=sys.stderr.isatty(),
    )
    print_renderable(render_table(report))
    if options.json:
        write_report_json(report, options.json)
        print_line(f"Wrote {options.json}")
    if options.pictures:
        for file in draw_findings(report, options.pictures):
            print_line(f"Wrote {file}")
    if options.quarantine:
        count = report.write_quarantine(options.quarantine)
        print_line(
            f"Wrote {options.quarantine} ({pluralize(count, 'row')} to leave out). "
            f"Train without them: data.quarantine={options.quarantine}"
        )
    return 0 if report.passed else 1


def load_gate_config(file: Path | None, settings: Sequence[str]) -> GateConfig:
    """Combine a YAML file with KEY=VALUE settings, which take precedence.

    Raises:
        DataError: The file is not a YAML mapping, or a key or value is invalid.
    """
    values = {} if file is None else _read_yaml(file)
    for setting in settings:
        key, separator, value = setting.partition("=")
        if not separator:
            raise DataError(f"--set {setting}: expected KEY=VALUE, such as imbalance=off")
        values[key] = value

    for key in values:
        if key not in GateConfig.model_fields:
            hint = did_you_mean(str(key), GateConfig.model_fields)
            raise DataError(f"unknown gate setting {key!r}; {hint}")

    try:
        return GateConfig.model_validate(values)
    except ValidationError as error:
        raise DataError(f"invalid gate settings: {format_validation_error(error)}") from error


def _read_yaml(file: Path) -> dict[str, Any]:
    text = read_bytes(file, error=DataError, max_bytes=_MAX_CONFIG_BYTES)
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: such as a bad date
        raise DataError(f"{file}: not valid YAML ({error})") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise DataError(
            f"{file}: expected a YAML mapping of rules to policies (error, warn, off) and of "
            "thresholds to numbers"
        )
    return content
