import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("ddp_training.py")


@pytest.mark.slow
def test_in_two_processes_both_hold_the_average_that_is_validated_and_saved(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-W", "ignore", str(SCRIPT), str(tmp_path)], check=True, timeout=300
    )
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert all(
        torch.equal(one, other) for one, other in zip(first["raw"], second["raw"], strict=True)
    )
    before, *steps = first["raw"]
    assert len(steps) == 2 * 4  # two epochs of 32 rows, four rows a process
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
