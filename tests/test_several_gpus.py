"""Runs on several GPUs, connected by NCCL."""

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from test_several_devices import ended_process, read_metrics, wait_for_file

pytestmark = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")

SETTINGS = (
    "trainer=ddp",
    "trainer.max_epochs=20",
    "data.batch_size=8",
    "callbacks.best_and_last.every_n_steps=2",
    "stages.evaluate=false",
    "logger=csv",
)


@pytest.mark.slow
def test_a_killed_process_ends_all_and_the_same_command_goes_on(
    tmp_path: Path, train_command: Any
) -> None:
    command = train_command(tmp_path, "run", *SETTINGS)
    run = tmp_path / "run"
    with ended_process(command, tmp_path) as process:
        wait_for_file(run / "checkpoints/last.ckpt")
        found = subprocess.run(
            ["pgrep", "-P", str(process.pid), "-f", "apps/train"],
            capture_output=True,
            text=True,
            check=True,
        )
        ranks = [int(line) for line in found.stdout.split()]
        assert len(ranks) == torch.cuda.device_count()
        os.kill(ranks[-1], signal.SIGKILL)
        assert process.wait(60) == 1

    subprocess.run(command, cwd=tmp_path, check=True)
    assert (run / "summary.json").exists()
    assert [row["step"] for row in read_metrics(run)] == [str(3 * n) for n in range(1, 21)]
