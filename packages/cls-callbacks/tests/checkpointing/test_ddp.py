import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

SCRIPT = Path(__file__).with_name("ddp_training.py")
SAVES = Path(__file__).with_name("ddp_saves.py")


@pytest.mark.slow
def test_ema_holds_the_same_average_in_both_ddp_processes(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", str(SCRIPT), str(tmp_path)]
    subprocess.run(command, check=True, timeout=300)
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    for one, other in zip(first["raw"], second["raw"], strict=True):
        assert torch.equal(one, other)
    before, *steps = first["raw"]
    assert len(steps) == 2 * 4  # two epochs of 32 rows, four rows per process and step
    assert not torch.equal(before, steps[-1])
    average = before.clone()
    for updates, weights in enumerate(steps):
        decay = min(0.9, (1 + updates) / (10 + updates))
        average = decay * average + (1 - decay) * weights
    for rank in (first, second):
        assert torch.allclose(rank["validated"][-1], average, atol=1e-6)
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert torch.allclose(saved["state_dict"]["layer.weight"], average, atol=1e-6)
    assert torch.equal(saved["raw_state_dict"]["layer.weight"], steps[-1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("on_save_error", "expected", "reported"),
    [
        ("stop", {"error": "the disk is full", "epoch": 2, "best": 0.1}, [4]),
        ("continue", {"error": None, "epoch": 3, "best": 0.3}, [4, 12]),
    ],
)
def test_ranks_agree_on_an_error_of_the_thread_that_writes(
    tmp_path: Path, on_save_error: str, expected: dict[str, Any], reported: list[int]
) -> None:
    command = [sys.executable, "-W", "ignore", str(SAVES), str(tmp_path), on_save_error]
    subprocess.run(command, check=True, timeout=300)
    for rank, steps in ((0, reported), (1, [])):
        result = json.loads((tmp_path / f"rank{rank}.json").read_text())
        assert result == {**expected, "reported": steps}
    best = torch.load(tmp_path / "checkpoints/best.ckpt", weights_only=True)
    assert round(best["scored"]["value"], 3) == expected["best"]
