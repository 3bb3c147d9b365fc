"""Fixtures: rows without findings, to which tests add faulty ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cls_data import GateConfig, check
from cls_data.gate.config import RULE_NAMES
from cls_data.gate.inputs import Finding


@pytest.fixture
def clean(picture: Any) -> dict[str, list[Any]]:
    """Rows without findings: two classes, 12 rows of each in train and 2 in valid and test."""
    numbers = iter(range(100, 200))

    def rows(count: int) -> list[Any]:
        return [(f"{row}.png", picture(next(numbers)), "12"[row % 2]) for row in range(count)]

    return {"train": rows(24), "valid": rows(4), "test": rows(4)}


@pytest.fixture
def find(tmp_path: Path, write_set: Any, clean: dict[str, list[Any]], preprocessing: Any) -> Any:
    """Add rows to the clean ones, and return the findings of one rule."""

    def find_with(
        rule: str, *, settings: dict[str, Any] | None = None, **added: Sequence[Any]
    ) -> Sequence[Finding]:
        splits = {split: [*rows, *added.get(split, ())] for split, rows in clean.items()}
        config = GateConfig(
            **{**dict.fromkeys(RULE_NAMES, "off"), rule: "error", **(settings or {})}
        )
        report = check(write_set(tmp_path, splits), preprocessing, config)
        assert report.passed == (not report.findings)
        assert set(report.findings) <= {rule}
        return report.findings.get(rule, ())

    return find_with
