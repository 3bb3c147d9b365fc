import csv
from pathlib import Path

import pytest

from cls_callbacks import ResumableCSVLogger


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_new_metric_adds_a_column_to_all_rows(tmp_path: Path) -> None:
    logger = ResumableCSVLogger(tmp_path / "run")
    logger.log_metrics({"lr": 0.1, "epoch": 0}, step=0)
    logger.log_metrics({"valid_top1": 0.5}, step=1)
    assert rows(tmp_path / "run") == [
        {"epoch": "0", "step": "0", "lr": "0.1", "valid_top1": ""},
        {"epoch": "", "step": "1", "lr": "", "valid_top1": "0.5"},
    ]


def test_a_resumed_run_goes_on_where_its_checkpoint_was(tmp_path: Path) -> None:
    first = ResumableCSVLogger(tmp_path)
    for step in range(6):
        first.log_metrics({"loss": float(step)}, step=step)
    second = ResumableCSVLogger(tmp_path)  # resumed from a checkpoint after step 3
    for step in range(4, 8):
        second.log_metrics({"loss": float(step)}, step=step)
    assert [row["step"] for row in rows(tmp_path)] == [str(step) for step in range(8)]


def test_numbers_are_read_back_exactly(tmp_path: Path) -> None:
    ResumableCSVLogger(tmp_path).log_metrics({"loss": 1 / 3}, step=0)
    assert float(rows(tmp_path)[0]["loss"]) == 1 / 3


@pytest.mark.parametrize("header", ["step,loss\n", ""])
def test_a_file_without_rows_is_taken_over(tmp_path: Path, header: str) -> None:
    (tmp_path / "metrics.csv").write_text(header)
    ResumableCSVLogger(tmp_path).log_metrics({"loss": 1.0}, step=3)
    assert [row["step"] for row in rows(tmp_path)] == ["3"]
