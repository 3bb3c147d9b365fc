"""Reports of the gate's findings: a table, JSON, and contact sheets of images."""

import io
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image, ImageDraw, ImageFont
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cls_data.gate.check import CheckReport
from cls_data.gate.config import RULE_NAMES
from cls_data.gate.inputs import Finding, unique_labels
from cls_data.gate.text import pluralize
from cls_data.images.strict_decoding import suppress_pillow_warnings
from cls_export.contract.errors import ImageError
from cls_export.contract.files import write_atomically
from cls_export.contract.text import escape_control_characters

_MAX_LISTED_FINDINGS = 5
_MAX_DRAWN_FINDINGS = 24
_MAX_IMAGES_PER_TILE = 4
_COLUMNS = 6
_TILE = 150  # px
_CAPTION_HEIGHT = 44  # px
_MAX_NAME_LENGTH = 24
_MAX_LABELS_LENGTH = 26
_STYLES = {"error": "bold red", "warn": "yellow", "off": "dim"}


def render_table(report: CheckReport) -> RenderableType:
    """Return a table of all rules, followed by the worst findings and the verdict."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("rule")
    table.add_column("policy")
    table.add_column("findings", justify="right")
    for rule in RULE_NAMES:
        policy = report.config.policy(rule)
        findings = report.findings.get(rule, ())
        style = _STYLES[policy] if findings else "dim"
        count = "-" if policy == "off" else str(len(findings))
        table.add_row(Text(rule, style), Text(policy, style), Text(count, style))
    notes = [Text(note) for note in report.notes]
    return Group(table, *notes, *_worst_findings(report), _verdict(report))


def _worst_findings(report: CheckReport) -> list[Text]:
    lines = []
    for rule, findings in report.findings.items():
        policy = report.config.policy(rule)
        lines.append(Text(f"{rule} ({len(findings)})", _STYLES[policy]))
        for finding in findings[:_MAX_LISTED_FINDINGS]:
            lines.append(Text(f"  {escape_control_characters(finding.text)}"))
        if len(findings) > _MAX_LISTED_FINDINGS:
            more = len(findings) - _MAX_LISTED_FINDINGS
            lines.append(Text(f"  … and {more} more", "dim"))
    return lines


def _verdict(report: CheckReport) -> Text:
    errors = pluralize(report.count("error"), "error")
    warnings = pluralize(report.count("warn"), "warning")
    counts = [f"{count} {split}" for split, count in report.row_counts.items()]
    rows = f"{', '.join(counts)} rows" if counts else "no valid rows"

    text = f"{errors}, {warnings} in {rows}; data fingerprint {report.fingerprint[:16]}"
    if report.passed:
        return Text(f"passed: {text}", "bold green")
    return Text(f"FAILED: {text}", "bold red")


def report_to_dict(report: CheckReport) -> dict[str, Any]:
    """Return the report, with every finding, as JSON values."""
    findings: dict[str, list[dict[str, Any]]] = {}
    for rule, rule_findings in report.findings.items():
        entries = []
        for finding in rule_findings:
            entries.append({"text": finding.text, "rows": list(finding.sources)})
        findings[rule] = entries

    return {
        "root": str(report.root),
        "passed": report.passed,
        "fingerprint": report.fingerprint,
        "rows": dict(report.row_counts),
        "notes": list(report.notes),
        "config": report.config.model_dump(mode="json"),
        "findings": findings,
    }


def write_report_json(report: CheckReport, path: str | os.PathLike[str]) -> None:
    """Write every finding to a JSON file."""
    text = json.dumps(report_to_dict(report), ensure_ascii=False, indent=1)
    write_atomically(path, f"{text}\n".encode())


def draw_findings(report: CheckReport, folder: str | os.PathLike[str]) -> list[Path]:
    """Draw the images of the worst findings, one `RULE.png` per rule, and return the paths."""
    paths = []
    for rule, findings in report.findings.items():
        drawable = [finding for finding in findings if finding.files]
        if not drawable:
            continue

        stream = io.BytesIO()
        _draw_sheet(report, drawable[:_MAX_DRAWN_FINDINGS]).save(stream, "PNG")
        path = Path(folder) / f"{rule}.png"
        write_atomically(path, stream.getvalue())
        paths.append(path)

    return paths


def _draw_sheet(report: CheckReport, findings: Sequence[Finding]) -> Image.Image:
    """Draw a tile per finding: up to four images above a caption."""
    columns = min(_COLUMNS, len(findings))
    rows = math.ceil(len(findings) / _COLUMNS)
    has_only_pairs = all(len(finding.files) == 2 for finding in findings)
    image_height = _TILE // 2 if has_only_pairs else _TILE
    row_height = image_height + _CAPTION_HEIGHT

    sheet = Image.new("RGB", (columns * _TILE, rows * row_height), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(11)
    for number, finding in enumerate(findings):
        row, column = divmod(number, _COLUMNS)
        left = column * _TILE
        top = row * row_height
        _paste_images(sheet, left, top, report, finding)
        draw.text(
            (left + 3, top + image_height),
            _caption(report, finding),
            fill="black",
            font=font,
            spacing=1,
        )
    return sheet


def _paste_images(
    sheet: Image.Image, left: int, top: int, report: CheckReport, finding: Finding
) -> None:
    side = _TILE if len(finding.files) == 1 else _TILE // 2
    for number, file in enumerate(finding.files[:_MAX_IMAGES_PER_TILE]):
        row, column = divmod(number, 2)
        x = left + column * side + 2
        y = top + row * side + 2
        image = _load_image(report, file, side - 4)
        sheet.paste(image, (x, y))


def _caption(report: CheckReport, finding: Finding) -> str:
    """Return the file and line of the first row, its split, and the labels of all rows."""
    labels = set()
    for file in finding.files:
        labels |= unique_labels(report.inputs.rows_by_file[file])
    source = PurePosixPath(finding.sources[0])
    first_row = report.inputs.rows_by_file[finding.files[0]][0]
    lines = [
        source.name[-_MAX_NAME_LENGTH:],
        first_row.split,
        " ".join(map(repr, sorted(labels)))[:_MAX_LABELS_LENGTH],
    ]
    return "\n".join(lines)


def _load_image(report: CheckReport, file: int, side: int) -> Image.Image:
    """Decode an image, and resize it to fit a square; gray if the file changed meanwhile."""
    rows = report.inputs.rows_by_file[file]
    try:
        with suppress_pillow_warnings():
            image = report.preprocessing.decode(rows[0].record.path)
    except ImageError:
        return Image.new("RGB", (side, side), "gray")

    ratio = min(side / image.width, side / image.height)
    width = max(1, round(image.width * ratio))
    height = max(1, round(image.height * ratio))
    resampling = Image.Resampling.NEAREST if ratio > 1 else Image.Resampling.BOX
    return image.resize((width, height), resampling)
