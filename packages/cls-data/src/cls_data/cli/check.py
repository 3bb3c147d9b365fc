"""`cls-data check`: run the data gate."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from rich.console import Console

from cls_data.cli.options import (
    Commands,
    add_annotations_option,
    add_quarantine_option,
    create_command,
    create_preprocessing,
    load_quarantine,
    positive_int,
)
from cls_data.errors import DataError
from cls_data.gate import GateConfig, check
from cls_data.gate.report import draw_findings, render_table, write_report_json
from cls_data.gate.text import pluralize
from cls_export.contract.errors import format_validation_error
from cls_export.contract.suggestions import did_you_mean

_SIDE = 64  # px; the rules look at the decoded image before it is resized


def add_command(commands: Commands) -> None:
    """Add the parser of `cls-data check`."""
    parser = create_command(
        commands,
        run,
        "check",
        "Check rows and images for problems",
        "The exit code is 1 if a rule with the policy `error` has findings.",
    )
    add_annotations_option(parser)
    add_quarantine_option(parser)
    text = "read policies and thresholds (see cls_data.GateConfig) from a YAML file"
    parser.add_argument("--config", metavar="FILE", type=Path, help=text)
    text = "override one policy or threshold, such as imbalance=off; can be repeated"
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help=text)
    text = "write a list of the rows to leave out, for --without and data.quarantine"
    parser.add_argument("--quarantine", metavar="FILE", type=Path, help=text)
    text = "write all findings to a JSON file"
    parser.add_argument("--json", metavar="FILE", type=Path, help=text)
    text = "draw the worst findings of each rule as FOLDER/RULE.png"
    parser.add_argument("--pictures", metavar="FOLDER", type=Path, help=text)
    text = "number of processes that decode images (default: all cores)"
    cores = os.cpu_count() or 1
    parser.add_argument("--workers", metavar="N", type=positive_int, default=cores, help=text)


def run(options: argparse.Namespace) -> int:
    """Run the command; return 1 if the data failed."""
    if options.quarantine and options.without:
        raise DataError(
            "--quarantine cannot be combined with --without: the new list would lack the rows "
            "that the old one contains; drop one of them"
        )
    report = check(
        options.root,
        create_preprocessing(_SIDE),
        load_gate_config(options.config, options.set),
        annotations=options.annotations,
        quarantine=load_quarantine(options),
        workers=options.workers,
        progress=sys.stderr.isatty(),
    )
    Console().print(render_table(report))
    if options.json:
        write_report_json(report, options.json)
        print(f"Wrote {options.json}")
    if options.pictures:
        for path in draw_findings(report, options.pictures):
            print(f"Wrote {path}")
    if options.quarantine:
        count = report.write_quarantine(options.quarantine)
        print(
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
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: not valid YAML ({error})") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise DataError(
            f"{file}: expected a YAML mapping of rules to policies (error, warn, off) and of "
            "thresholds to numbers"
        )
    return content
