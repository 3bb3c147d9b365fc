from pathlib import Path

import pytest

from cls_data import DataModuleConfig
from cls_data.loading.decoded_dataset import DecodedDataset
from cls_export.contract.preprocessing import Preprocessing


def test_the_fingerprint_is_computed_once(
    root: Path, preprocessing: Preprocessing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every checkpoint has it, and it takes minutes for millions of rows."""
    dataset = DecodedDataset.load(DataModuleConfig(root=root), preprocessing)
    first = dataset.fingerprint()
    monkeypatch.delattr("cls_data.loading.decoded_dataset.compute_fingerprint")
    assert dataset.fingerprint() == first
