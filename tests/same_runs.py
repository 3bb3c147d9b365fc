"""Compare two runs bit by bit."""

import csv
import json
from pathlib import Path

import numpy as np
import torch

from cls_export.contract.run_layout import RunPaths


def assert_same_run(
    run: RunPaths, expected: RunPaths, ignored_files: frozenset[str] = frozenset()
) -> None:
    for checkpoint in ("last", "best"):
        assert_same_weights(getattr(run, checkpoint), getattr(expected, checkpoint))
    for split in ("valid", "test"):
        assert_same_arrays(run.predictions / f"{split}.npz", expected.predictions / f"{split}.npz")
    evaluation = json.loads(run.evaluation.read_bytes())
    assert evaluation == json.loads(expected.evaluation.read_bytes())
    assert read_metrics(run) == read_metrics(expected)
    assert set(list_files(run)) - ignored_files == set(list_files(expected)) - ignored_files


def assert_same_weights(checkpoint: Path, expected: Path) -> None:
    one = torch.load(checkpoint, weights_only=True)
    other = torch.load(expected, weights_only=True)
    assert one["scored"] == other["scored"]
    for key in ("state_dict", "raw_state_dict"):
        assert one[key].keys() == other[key].keys()
        for name, weights in one[key].items():
            assert torch.equal(weights, other[key][name]), (checkpoint, key, name)


def assert_same_arrays(file: Path, expected: Path) -> None:
    with np.load(file) as one, np.load(expected) as other:
        assert sorted(one.files) == sorted(other.files)
        for name in one.files:
            assert one[name].tobytes() == other[name].tobytes(), (file, name)


def read_metrics(run: RunPaths) -> list[dict[str, str]]:
    """Return every row of metrics.csv without the columns that depend on time."""
    with run.metrics.open(newline="") as stream:
        return [{**row, "images_per_second": "", "data_wait": ""} for row in csv.DictReader(stream)]


def list_files(run: RunPaths) -> list[str]:
    """Return the names of all files but those of TensorBoard, which contain the time."""
    names = []
    for path in run.path.rglob("*"):
        name = str(path.relative_to(run.path))
        if not name.startswith("tensorboard/"):
            names.append(name)
    return sorted(names)


def assert_no_drafts(folder: Path) -> None:
    assert list(folder.rglob(".*")) == []
