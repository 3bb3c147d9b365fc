"""The sbatch script of docs/clusters.md, with stand-ins for the commands of SLURM."""

import re
import signal
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture
def script(tmp_path: Path) -> Path:
    page = (REPOSITORY / "docs/clusters.md").read_text()
    blocks = re.findall(r"```bash\n(#!/bin/bash\n.*?)```", page, flags=re.DOTALL)
    assert len(blocks) == 1
    path = tmp_path / "train.sbatch"
    path.write_text(blocks[0].replace("cd /shared/cls", f"cd {tmp_path}"))
    return path


def add_command(folder: Path, name: str, body: str) -> None:
    command = folder / name
    command.write_text(f"#!/bin/bash\n{body}\n")
    command.chmod(0o755)


def run_script(script: Path, srun: str, *, is_canceled: bool = False) -> tuple[int, str, str]:
    """Return the exit code, the arguments of srun, and those of scontrol."""
    folder = script.parent
    add_command(folder, "squeue", "" if is_canceled else "echo 42 RUNNING")
    add_command(folder, "srun", f'echo "$@" > {folder}/srun.txt\n{srun}')
    add_command(folder, "scontrol", f'echo "$@" > {folder}/scontrol.txt')
    environment = {"PATH": f"{folder}:/usr/bin:/bin", "SLURM_JOB_ID": "42"}
    process = subprocess.run(["bash", str(script)], env=environment)
    requeued = folder / "scontrol.txt"
    called = requeued.read_text() if requeued.exists() else ""
    return process.returncode, (folder / "srun.txt").read_text(), called


@pytest.mark.parametrize("code", [0, 1, 2, 130, 143])
def test_the_script_requeues_the_job_on_143_alone_and_passes_the_code_on(
    script: Path, code: int
) -> None:
    returned, started, called = run_script(script, f"exit {code}")
    assert returned == code
    assert " uv run apps/train experiment=jersey_numbers trainer=gpu " in started
    assert called == ("requeue 42\n" if code == signal.SIGTERM + 128 else "")


def test_a_signal_to_the_batch_shell_does_not_end_it_before_it_requeues(script: Path) -> None:
    returned, _, called = run_script(script, "kill -TERM $PPID; sleep 0.5; exit 143")
    assert (returned, called) == (143, "requeue 42\n")


def test_the_script_does_not_requeue_a_canceled_job(script: Path) -> None:
    returned, _, called = run_script(script, "exit 143", is_canceled=True)
    assert (returned, called) == (143, "")
