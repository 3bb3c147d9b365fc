import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from cls_data import CheckReport, GateConfig, check
from cls_data.gate.config import RULE_NAMES
from cls_data.gate.report import draw_findings, render_table, report_to_dict, write_report_json


def encoded(image: Image.Image, kind: str, **settings: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **settings)
    return stream.getvalue()


@pytest.fixture
def report(tmp_path: Path, write_set: Any, picture: Any, preprocessing: Any) -> CheckReport:
    palette = picture(8).quantize(8)
    rows = [
        ("a.png", picture(0), "1"),
        ("b.bmp", picture(0), "é[bold]2"),
        ("c.gif", encoded(picture(1), "PNG"), "1"),
        ("d.png", encoded(palette, "PNG", transparency=bytes(range(8))), "1"),
        ("e.gif", encoded(palette, "PNG", transparency=bytes(range(8))), "1"),
        ("f.png", Image.new("RGB", (10_000, 1)), "3"),
        ("g.png", b"", "1"),
        *((f"dup{row}.png", picture(9), "1") for row in range(30)),
        b"nonsense [red]",
    ]
    root = write_set(tmp_path / "set", {"train": rows, "valid": [("a.png", picture(0), "1")]})
    return check(root, preprocessing, GateConfig(imbalance="off"))


def print_table(report: CheckReport) -> str:
    console = Console(record=True, width=200, file=io.StringIO())
    console.print(render_table(report))
    return console.export_text()


def test_table_lists_every_rule_with_policy_and_count(report: CheckReport) -> None:
    lines = print_table(report).splitlines()
    cells = [line.split() for line in lines]
    for rule in RULE_NAMES:
        count = "-" if rule == "imbalance" else str(len(report.findings.get(rule, ())))
        assert [rule, report.config.policy(rule), count] in cells
    assert any(line.startswith("FAILED: ") and report.fingerprint[:16] in line for line in lines)


def test_table_does_not_interpret_markup_in_findings(report: CheckReport) -> None:
    text = print_table(report)
    assert "with the labels '1', 'é[bold]2'" in text
    assert "not valid JSON (expected ident at line 1 column 2): nonsense [red]" in text
    assert "near_duplicates_within_split (" not in text
    assert "outlying_sizes (1)" in text


def test_table_ends_with_the_verdict_when_data_passes(
    tmp_path: Path, write_set: Any, picture: Any, preprocessing: Any
) -> None:
    root = write_set(tmp_path, {"train": [("a.png", picture(0), "1"), ("b.png", picture(1), "2")]})
    text = print_table(check(root, preprocessing))
    assert "passed: 0 errors, 2 warnings in 2 train rows; data fingerprint " in text
    assert "class '1' has 1 row in train" in text


def test_table_reports_a_set_without_valid_rows(
    tmp_path: Path, write_set: Any, preprocessing: Any
) -> None:
    report = check(write_set(tmp_path, {"train": [b"{}"]}), preprocessing)
    assert "FAILED: 1 error, 0 warnings in no valid rows" in print_table(report)


def test_json_contains_every_finding_and_setting(report: CheckReport, tmp_path: Path) -> None:
    write_report_json(report, tmp_path / "new" / "report.json")
    text = (tmp_path / "new" / "report.json").read_text(encoding="utf-8")
    content = json.loads(text)
    assert content == report_to_dict(report)
    keys = {"root", "passed", "fingerprint", "rows", "notes", "config", "findings"}
    assert set(content) == keys
    assert (content["passed"], content["rows"]) == (False, {"train": 37, "valid": 1})
    assert content["fingerprint"] == report.fingerprint
    assert GateConfig.model_validate(content["config"]) == report.config
    assert content["findings"].keys() == report.findings.keys()
    assert {"schema_errors", "damaged_images", "conflicting_labels", "wrong_extensions"} <= content[
        "findings"
    ].keys()
    for rule, findings in report.findings.items():
        assert content["findings"][rule] == [
            {"text": finding.text, "rows": list(finding.sources)} for finding in findings
        ]
    assert "é[bold]2" in text


def test_pictures_are_drawn_for_every_rule_about_images(
    report: CheckReport, tmp_path: Path
) -> None:
    written = draw_findings(report, tmp_path / "new" / "pictures")
    about_images = [
        rule
        for rule, findings in report.findings.items()
        if any(finding.files for finding in findings)
    ]
    assert [path.name for path in written] == [f"{rule}.png" for rule in about_images]
    assert {
        "conflicting_labels",
        "wrong_extensions",
        "outlying_aspects",
        "duplicates_within_split",
    } <= set(about_images)
    for path in written:
        with Image.open(path) as image:
            image.load()
            assert image.width <= 900
            assert image.convert("L").getextrema()[0] < 100
    assert sorted(path.name for path in (tmp_path / "new" / "pictures").iterdir()) == sorted(
        path.name for path in written
    )


def test_pictures_respect_exif_orientation(
    tmp_path: Path, write_set: Any, preprocessing: Any
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    wide = Image.new("RGB", (40, 20), (0, 0, 0))
    wide.paste((255, 0, 0), (0, 0, 20, 20))  # left in the file, top after rotation
    root = write_set(
        tmp_path, {"train": [("a.jpg", encoded(wide, "JPEG", exif=exif, quality=95), "1")]}
    )
    report = check(root, preprocessing, GateConfig(blurred_under=1e9))
    path = next(
        path for path in draw_findings(report, tmp_path / "out") if path.stem == "blurred_images"
    )
    with Image.open(path) as image:
        top, bottom = image.getpixel((30, 30)), image.getpixel((30, 110))
    assert top[0] > 200
    assert max(bottom) < 50


def test_picture_shows_at_most_24_findings(
    tmp_path: Path, write_set: Any, picture: Any, preprocessing: Any
) -> None:
    rows = [(f"{row}.png", picture(row), "1") for row in range(40)]
    report = check(
        write_set(tmp_path, {"train": rows}), preprocessing, GateConfig(blurred_under=1e9)
    )
    (path,) = draw_findings(report, tmp_path / "out")
    with Image.open(path) as image:
        assert image.size == (6 * 150, 4 * 194)


def test_no_pictures_are_drawn_without_findings(
    tmp_path: Path, write_set: Any, picture: Any, preprocessing: Any
) -> None:
    report = check(write_set(tmp_path, {"train": [("a.png", picture(0), "1")]}), preprocessing)
    assert draw_findings(report, tmp_path / "out") == []
    assert not (tmp_path / "out").exists()
