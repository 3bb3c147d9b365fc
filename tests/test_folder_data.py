"""A run on class folders: the split that is made, evaluated, recorded, and used again."""

import json
from pathlib import Path

import numpy as np
import pytest
from forked_app import finish, make_warnings_errors
from PIL import Image
from tiny_network import TINY_NETWORK

from cls_data import Predictions


def _add_images(root: Path, label: str, count: int) -> None:
    folder = root / label
    folder.mkdir(parents=True, exist_ok=True)
    start = len(list(folder.iterdir()))
    for number in range(start, start + count):
        rng = np.random.default_rng([number, *label.encode()])
        levels = rng.integers(0, 256, (8, 6, 3), dtype=np.uint8)
        image = Image.fromarray(levels).resize((24, 32), Image.Resampling.NEAREST)
        image.save(folder / f"{number}.png")


def _train(root: Path, runs: Path, name: str, *more: str) -> Path:
    settings = [*TINY_NETWORK, "debug=tiny", "data=folder", "trainer.max_epochs=1"]
    settings += ["callbacks.grad_cam=null", "stages.export=false", "stages.report=false"]
    settings += [f"data.root={root}", f"run.root={runs}", f"run.name={name}", *more]
    finish(settings, runs / f"{name}.txt", prepare=make_warnings_errors)
    return runs / name


def _read_split(run: Path) -> dict[str, str]:
    rows = [json.loads(line) for line in (run / "split.jsonl").read_text().splitlines()]
    return {row["image"]: row["split"] for row in rows}


@pytest.mark.slow
def test_a_run_on_class_folders_records_the_split_that_it_evaluates(tmp_path: Path) -> None:
    root = tmp_path / "pets"
    for label in ("cat", "dog", "fox"):
        _add_images(root, label, 12)
    first = _train(root, tmp_path, "first")
    split = _read_split(first)
    assert len(split) == 36
    for name in ("valid", "test"):
        predictions = Predictions.load(first / "predictions" / f"{name}.npz")
        assert {image for image in split if split[image] == name} == set(predictions.ids.tolist())

    # Other images, another seed: no recorded image moves.
    for label in ("cat", "dog", "fox"):
        _add_images(root, label, 6)
    record = f"data.split.record={first / 'split.jsonl'}"
    second = _read_split(_train(root, tmp_path, "second", record, "seed=7"))
    assert len(second) == 54
    assert split.items() <= second.items()
