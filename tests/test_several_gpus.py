"""Runs on several GPUs, connected by NCCL."""

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from test_several_devices import ended_process, list_children, read_metrics, wait_for_file

from cls_callbacks import verify_checkpoint

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
        ranks = list_children(process.pid)
        assert len(ranks) == torch.cuda.device_count()
        os.kill(ranks[-1], signal.SIGKILL)
        assert process.wait(60) == 1

    subprocess.run(command, cwd=tmp_path, check=True)
    assert (run / "summary.json").exists()
    assert [row["step"] for row in read_metrics(run)] == [str(3 * n) for n in range(1, 21)]


@pytest.mark.slow
def test_a_signal_saves_and_leaves_the_group_before_the_processes_end(
    tmp_path: Path, train_command: Any
) -> None:
    command = train_command(
        tmp_path, "run", *SETTINGS, "trainer.max_epochs=500", "trainer.sync_batchnorm=true"
    )
    with (tmp_path / "errors").open("w") as errors:
        process = subprocess.Popen(command, cwd=tmp_path, stderr=errors)
        wait_for_file(tmp_path / "run/checkpoints/last.ckpt")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
    verify_checkpoint(tmp_path / "run/checkpoints/last.ckpt")
    output = (tmp_path / "errors").read_text()
    assert "destroy_process_group" not in output
    assert "AccumulateGrad" not in output
