import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from cls_data import CheckReport, GateConfig, check
from cls_data.gate.config import RULES
from cls_data.gate.report import as_json, as_table, draw_offenders, write_json


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


def printed(report: CheckReport) -> str:
    console = Console(record=True, width=200, file=io.StringIO())
    console.print(as_table(report))
    return console.export_text()


def test_the_table_names_every_rule_with_its_policy_and_count(report: CheckReport) -> None:
    lines = printed(report).splitlines()
    cells = [line.split() for line in lines]
    for rule in RULES:
        count = "-" if rule == "imbalance" else str(len(report.findings.get(rule, ())))
        assert [rule, report.config.policy(rule), count] in cells
    assert any(line.startswith("FAILED: ") and report.fingerprint[:16] in line for line in lines)


def test_the_table_shows_the_first_findings_as_they_are(report: CheckReport) -> None:
    text = printed(report)
    assert "several labels: '1', 'é[bold]2'" in text
    assert "not valid JSON (expected ident at line 1 column 2): nonsense [red]" in text
    assert "near_duplicates_within_split (" not in text
    assert "outlying_sizes (1)" in text


def test_a_set_that_passes_is_said_to(
    tmp_path: Path, write_set: Any, picture: Any, preprocessing: Any
) -> None:
    root = write_set(tmp_path, {"train": [("a.png", picture(0), "1"), ("b.png", picture(1), "2")]})
    text = printed(check(root, preprocessing))
    assert "passed: 0 errors, 2 warnings in 2 train rows; fingerprint " in text
    assert "class '1' has 1 rows in train" in text


def test_a_set_of_no_good_rows_has_a_table_too(
    tmp_path: Path, write_set: Any, preprocessing: Any
) -> None:
    report = check(write_set(tmp_path, {"train": [b"{}"]}), preprocessing)
    assert "FAILED: 1 errors, 0 warnings in no good rows" in printed(report)


def test_json_holds_every_finding_and_setting(report: CheckReport, tmp_path: Path) -> None:
    write_json(report, tmp_path / "new" / "report.json")
    text = (tmp_path / "new" / "report.json").read_text(encoding="utf-8")
    content = json.loads(text)
    assert content == as_json(report)
    assert set(content) == {"root", "passed", "fingerprint", "rows", "config", "findings"}
    assert (content["passed"], content["rows"]) == (False, {"train": 37, "valid": 1})
    assert content["fingerprint"] == report.fingerprint
    assert GateConfig.model_validate(content["config"]) == report.config
    assert content["findings"].keys() == report.findings.keys()
    assert {"schema_errors", "damaged_images", "conflicting_labels", "wrong_extensions"} <= content[
        "findings"
    ].keys()
    for rule, found in report.findings.items():
        assert content["findings"][rule] == [
            {"text": finding.text, "rows": list(finding.sources)} for finding in found
        ]
    assert "é[bold]2" in text


def test_the_worst_offenders_are_drawn_for_every_rule_about_images(
    report: CheckReport, tmp_path: Path
) -> None:
    written = draw_offenders(report, tmp_path / "new" / "pictures")
    about_images = [
        rule for rule, found in report.findings.items() if any(finding.files for finding in found)
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


def test_a_picture_shows_images_as_the_preprocessing_sees_them(
    tmp_path: Path, write_set: Any, preprocessing: Any
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    wide = Image.new("RGB", (40, 20), (0, 0, 0))
    wide.paste((255, 0, 0), (0, 0, 20, 20))  # left in the file, and on top when upright
    root = write_set(
        tmp_path, {"train": [("a.jpg", encoded(wide, "JPEG", exif=exif, quality=95), "1")]}
    )
    report = check(root, preprocessing, GateConfig(blurred_under=1e9))
    path = next(
        path for path in draw_offenders(report, tmp_path / "out") if path.stem == "blurred_images"
    )
    with Image.open(path) as image:
        top, bottom = image.getpixel((30, 30)), image.getpixel((30, 110))
    assert top[0] > 200
    assert max(bottom) < 50


def test_only_the_worst_are_drawn(
    tmp_path: Path, write_set: Any, picture: Any, preprocessing: Any
) -> None:
    rows = [(f"{row}.png", picture(row), "1") for row in range(40)]
    report = check(
        write_set(tmp_path, {"train": rows}), preprocessing, GateConfig(blurred_under=1e9)
    )
    (path,) = draw_offenders(report, tmp_path / "out")
    with Image.open(path) as image:
        assert image.size == (6 * 150, 4 * 194)


def test_without_findings_nothing_is_drawn(
    tmp_path: Path, write_set: Any, picture: Any, preprocessing: Any
) -> None:
    report = check(write_set(tmp_path, {"train": [("a.png", picture(0), "1")]}), preprocessing)
    assert draw_offenders(report, tmp_path / "out") == []
    assert not (tmp_path / "out").exists()
