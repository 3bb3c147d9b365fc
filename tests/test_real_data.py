"""The real crops, if present. Their license is unverified, so they are not in the repository."""

import collections
import json
import re
import tarfile
from pathlib import Path

import pytest

from cls_data import Quarantine, build_class_to_idx, read_split
from cls_data.cli.main import main as cls_data_command

ARCHIVE = Path(__file__).resolve().parents[2] / "shared/data/basketball-jersey-numbers-ocr.tar.gz"

pytestmark = pytest.mark.skipif(not ARCHIVE.exists(), reason="the real crops are not present")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder / "basketball-jersey-numbers-ocr"


def test_real_data_has_the_expected_rows_and_classes(root: Path) -> None:
    train, valid = read_split(root, "train"), read_split(root, "valid")
    assert (len(train), len(valid)) == (8790, 372)
    classes = build_class_to_idx(train)
    assert len(classes) == 43
    assert list(classes)[:5] == ["", "0", "00", "1", "10"]
    labels = collections.defaultdict(set)
    for record in train:
        labels[record.id].add(record.label)
    assert sum(len(names) > 1 for names in labels.values()) == 117


def test_the_gate_finds_doubly_labeled_rows_and_42_classes_remain_without_them(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, findings = tmp_path / "rows.jsonl", tmp_path / "findings.json"
    assert (
        cls_data_command(["check", str(root), "--quarantine", str(rows), "--json", str(findings)])
        == 1
    )
    found = json.loads(findings.read_text())["findings"]["conflicting_labels"]
    assert sum(finding["text"].startswith("train/") for finding in found) == 117
    assert all(
        re.match(r"(train|valid)/annotations\.jsonl:\d+: ", finding["text"]) for finding in found
    )
    quarantine = Quarantine.load(rows)
    train = read_split(root, "train", quarantine=quarantine)
    assert (len(train), len(read_split(root, "valid", quarantine=quarantine))) == (8673, 364)
    assert len(build_class_to_idx(train)) == 42
    assert cls_data_command(["check", str(root), "--without", str(rows)]) == 0
    assert "passed: 0 errors" in capsys.readouterr().out
