"""A run on Vertex AI that loses its machine, with processes of this machine as the cloud."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from remote_servers import Server, install_packages, s3_server
from vertex_service import JobService, install_library, job_service

from cls_export.contract.run_layout import RunPaths

pytestmark = [
    pytest.mark.slow,
    pytest.mark.faults,
    pytest.mark.usefixtures("whole_systems"),
]

REPOSITORY = Path(__file__).resolve().parents[3]
IMAGE = f"127.0.0.1:9/team/cls-train@sha256:{'ab' * 32}"
"""Nothing listens on port 9, so its label is not read."""

NAME = "spot-run"
TRAINING = (
    *("debug=tiny", "data=synthetic_tiny", "data.batch_size=4", "trainer.max_epochs=8"),
    *("model=torchvision", "model.name=shufflenet_v2_x0_5"),
    "callbacks.best_and_last.every_n_steps=2",
)


class Cloud:
    """Runs the container of a job as a process, and takes its first machine away.

    Attributes:
        states: States of the job, in their order.
        exit_codes: Exit codes of the processes.
        folder: Holds a folder for each machine.
    """

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.states: list[str] = []
        self.exit_codes: list[int] = []
        self._environment = environment

    def __call__(self, service: JobService, job: Any) -> None:
        """Run a job to its end."""
        scheduling = job.job_spec.scheduling
        assert scheduling.strategy.name == "SPOT"
        assert scheduling.restart_job_on_worker_restart
        assert not scheduling.disable_retries
        self._set_state(service, job, "RUNNING")
        self._run(job, "first", is_preempted=True)
        shutil.rmtree(self.folder / "first")
        self._set_state(service, job, "PENDING")
        self._set_state(service, job, "RUNNING")
        code = self._run(job, "second", is_preempted=False)
        self._set_state(service, job, "SUCCEEDED" if code == 0 else "FAILED")

    def read_output(self, machine: str) -> str:
        return (self.folder / f"{machine}.txt").read_text()

    def _run(self, job: Any, machine: str, *, is_preempted: bool) -> int:
        container = job.job_spec.worker_pool_specs[0].container_spec
        folder = self.folder / machine
        folder.mkdir()
        variables = {each.name: _expand(each.value) for each in container.env}
        with (self.folder / f"{machine}.txt").open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, REPOSITORY / "apps/train", *map(_expand, container.args)],
                cwd=folder,
                env={**os.environ, **self._environment, **variables},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            if is_preempted:
                _wait_for(RunPaths(folder / "runs" / NAME).last, process)
                process.send_signal(signal.SIGTERM)
            self.exit_codes.append(process.wait(300))
        return self.exit_codes[-1]

    def _set_state(self, service: JobService, job: Any, state: str) -> None:
        self.states.append(state)
        service.set_state(job, state)


def _expand(text: str) -> str:
    return re.sub(r"\$\$", "$", text)


def _wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 200
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The client of Vertex AI in this process; object storage for the processes of the cloud."""
    folder = tmp_path_factory.mktemp("packages")
    install_library(folder / "vertex")
    install_packages(folder / "storage")
    sys.path.append(str(folder / "vertex"))
    yield folder
    sys.path.remove(str(folder / "vertex"))


@pytest.fixture(scope="module")
def s3(packages: Path) -> Iterator[Server]:
    with s3_server(packages / "storage", packages / "s3") as server:
        yield server


def test_a_preempted_run_is_restarted_and_finishes(
    run_launch: Callable[..., tuple[int, str, str]],
    packages: Path,
    s3: Server,
    tmp_path: Path,
) -> None:
    from cls_train.run_folder.state import RunState, read_state  # imports PyTorch

    cloud = Cloud(tmp_path, {**s3.environment, "PYTHONPATH": str(packages / "storage")})
    with job_service(cloud) as service:
        place = ("target=vertex", "target.project=my-project", f"target.endpoint={service.url}")
        arguments = (
            *(*place, f"run.name={NAME}"),
            *(f"image={IMAGE}", "resources.gpus=0", "allow_dirty=true", "--"),
            *(*TRAINING, f"run.remote={s3.url}"),
        )
        code, out, err = run_launch(*arguments)
        assert code == 0, err
        assert f"{NAME}: submitted as projects/my-project/" in out
        code, _, err = run_launch(*arguments)
        assert code == 2
        assert f"{NAME!r} is the name of projects/my-project/" in err
        service.wait()

        code, out, _ = run_launch("status", NAME, *place)
        assert code == 0
        assert cloud.states == ["RUNNING", "PENDING", "RUNNING", "SUCCEEDED"]
        assert cloud.exit_codes == [143, 0], cloud.read_output("second")
        assert out == f"{NAME}: SUCCEEDED\n"
        assert "pushed everything to" in cloud.read_output("first")
        second = cloud.read_output("second")
        assert "fetching" in second
        assert "resuming from" in second
        assert read_state(RunPaths(tmp_path / "second/runs" / NAME)) is RunState.FINISHED
        assert len(service.jobs) == 1
