"""What the gate found, for people (a table, pictures) and for programs (JSON)."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cls_data.gate.check import CheckReport
from cls_data.gate.config import RULES
from cls_data.gate.inputs import Finding
from cls_data.images.decoding import quiet_decoding
from cls_export.contract.files import write_atomically

SHOWN_A_RULE = 5
_PICTURES_A_RULE, _COLUMNS, _TILE, _CAPTION = 24, 6, 150, 44
_STYLES = {"error": "bold red", "warn": "yellow", "off": "dim"}


def as_table(report: CheckReport) -> RenderableType:
    """Return a table of all rules, and below it what the first findings of each say."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("rule")
    table.add_column("policy")
    table.add_column("found", justify="right")
    for rule in RULES:
        policy, count = report.config.policy(rule), len(report.findings.get(rule, ()))
        style = _STYLES[policy] if count else "dim"
        table.add_row(
            Text(rule, style),
            Text(policy, style),
            Text("-" if policy == "off" else str(count), style),
        )
    details: list[RenderableType] = []
    for rule, found in report.findings.items():
        details.append(Text(f"{rule} ({len(found)})", style=_STYLES[report.config.policy(rule)]))
        details += [Text(f"  {finding.text}") for finding in found[:SHOWN_A_RULE]]
        if len(found) > SHOWN_A_RULE:
            details.append(Text(f"  … and {len(found) - SHOWN_A_RULE} more", style="dim"))
    rows = ", ".join(f"{count} {split}" for split, count in report.rows().items())
    verdict = "passed" if report.passed else "FAILED"
    closing = (
        f"{verdict}: {report.count('error')} errors, {report.count('warn')} warnings in {rows or 'no good'} rows; "
        f"fingerprint {report.fingerprint[:16]}"
    )
    return Group(
        table, *details, Text(closing, style="bold green" if report.passed else "bold red")
    )


def as_json(report: CheckReport) -> dict[str, Any]:
    """Return every finding as plain values."""
    return {
        "root": str(report.root),
        "passed": report.passed,
        "fingerprint": report.fingerprint,
        "rows": report.rows(),
        "config": report.config.model_dump(mode="json"),
        "findings": {
            rule: [{"text": finding.text, "rows": list(finding.sources)} for finding in found]
            for rule, found in report.findings.items()
        },
    }


def write_json(report: CheckReport, path: str | os.PathLike[str]) -> None:
    """Write every finding to a file."""
    write_atomically(
        path, (json.dumps(as_json(report), ensure_ascii=False, indent=1) + "\n").encode()
    )


def draw_offenders(report: CheckReport, folder: str | os.PathLike[str]) -> list[Path]:
    """Draw the images of the worst findings, a picture `RULE.png` for each rule that has any, and return the paths."""
    written = []
    for rule, found in report.findings.items():
        shown = [finding for finding in found if finding.files][:_PICTURES_A_RULE]
        if shown:
            path = Path(folder) / f"{rule}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            _sheet(report, shown).save(path)
            written.append(path)
    return written


def _sheet(report: CheckReport, findings: Sequence[Finding]) -> Image.Image:
    """Draw a tile for each finding: up to four of its images side by side, and the first one's place and labels."""
    rows = -(-len(findings) // _COLUMNS)
    columns = min(_COLUMNS, len(findings))
    height = _TILE // 2 if all(len(finding.files) == 2 for finding in findings) else _TILE
    sheet = Image.new("RGB", (columns * _TILE, rows * (height + _CAPTION)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for number, finding in enumerate(findings):
        left, top = number % _COLUMNS * _TILE, number // _COLUMNS * (height + _CAPTION)
        files = finding.files[:4]
        side = _TILE // (1 if len(files) == 1 else 2)
        for place, file in enumerate(files):
            tile = _tile(report, file, side - 4)
            sheet.paste(tile, (left + place % 2 * side + 2, top + place // 2 * side + 2))
        labels = sorted(
            {row.record.label for file in finding.files for row in report.evidence.by_file[file]}
        )
        place_in_file = finding.sources[0].rpartition("/")[2]
        lines = [
            place_in_file[-24:],
            finding.sources[0].partition("/")[0],
            " ".join(map(repr, labels))[:26],
        ]
        draw.text((left + 3, top + height), "\n".join(lines), fill="black", font=font, spacing=1)
    return sheet


def _tile(report: CheckReport, file: int, side: int) -> Image.Image:
    """Read one image again, enlarged by whole pixels or shrunk to fit."""
    data = report.evidence.by_file[file][0].record.path.read_bytes()
    with quiet_decoding():
        shown = report.preprocessing.decode(data)
    ratio = min(side / shown.width, side / shown.height)
    size = (max(1, round(shown.width * ratio)), max(1, round(shown.height * ratio)))
    return shown.resize(size, Image.Resampling.NEAREST if ratio > 1 else Image.Resampling.BOX)
