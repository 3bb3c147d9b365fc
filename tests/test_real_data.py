"""The real crops, where they are present; their licence is unverified, so they are never part of the repository."""

import collections
import tarfile
from pathlib import Path

import pytest

from cls_data import class_to_idx, read_split

ARCHIVE = Path(__file__).resolve().parents[2] / "shared/data/basketball-jersey-numbers-ocr.tar.gz"

pytestmark = pytest.mark.skipif(not ARCHIVE.exists(), reason="the real crops are not here")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder / "basketball-jersey-numbers-ocr"


def test_the_real_rows_are_read_with_their_counts_and_classes(root: Path) -> None:
    train, valid = read_split(root, "train"), read_split(root, "valid")
    assert (len(train), len(valid)) == (8790, 372)
    classes = class_to_idx(train)
    assert len(classes) == 43
    assert list(classes)[:5] == ["", "0", "00", "1", "10"]
    labels = collections.defaultdict(set)
    for record in train:
        labels[record.id].add(record.label)
    assert sum(len(names) > 1 for names in labels.values()) == 117
