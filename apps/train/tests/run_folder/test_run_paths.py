from pathlib import Path
from typing import Any

import pytest

from cls_export.contract.run_layout import RunPaths
from cls_train.errors import RunError
from cls_train.run_folder.run_paths import choose_run_paths, read_config


def test_choose_run_paths_gives_unnamed_runs_different_folders(
    composed: Any, tmp_path: Path
) -> None:
    config = composed(f"run.root={tmp_path}", "seed=7")
    first = choose_run_paths(config)
    first.path.mkdir()
    second = choose_run_paths(config)
    assert first.path != second.path
    assert "resnet18-seed7" in first.path.name


def test_choose_run_paths_accepts_a_number_as_name(composed: Any) -> None:
    assert choose_run_paths(composed("run.name=2024")).path.name == "2024"


def test_read_config_names_a_damaged_file(interrupted_run: RunPaths) -> None:
    for text in ("a: [", "just text", "seed: 1\nsurprise: 2\n"):
        interrupted_run.config.write_text(text)
        with pytest.raises(RunError, match=r"config.yaml is damaged, or was edited"):
            read_config(interrupted_run)


def test_config_records_the_data_root_as_an_absolute_path(composed: Any) -> None:
    assert Path(composed("data=jsonl", "data.root=mine").data["root"]).is_absolute()
