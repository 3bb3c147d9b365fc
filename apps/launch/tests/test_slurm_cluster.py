"""Jobs on a real SLURM cluster of one node, unpacked into the folder of the test."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
PACKAGES = (
    "slurmd",
    "slurmctld",
    "slurm-client",
    "slurm-wlm-basic-plugins",
    "libmunge2",
    "libhwloc15",
)

TRAINING = """#!/bin/bash
# Stands for `uv run apps/train`: saves on SIGTERM, and ends when it is restarted.
echo "attempt $((SLURM_RESTART_COUNT + 1)): $* key=${WANDB_API_KEY:-none} other=${OTHER:-none}"
trap 'echo saved; exit 143' TERM
if [ "${SLURM_RESTART_COUNT:-0}" -eq 0 ]; then
    for _ in $(seq 600); do sleep 0.2; done
fi
echo finished
"""

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
PluginDir={libraries}/slurm-wlm
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
KillWait=10
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=1024 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""

Run = Callable[..., str]


def find_free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def unpack(folder: Path) -> Path:
    """Download and unpack SLURM, or skip the test; return the root."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        pytest.skip("needs root, apt-get, and dpkg to unpack SLURM")
    downloaded = subprocess.run(
        ["apt-get", "download", *PACKAGES], cwd=folder, capture_output=True, text=True, check=False
    )
    if downloaded.returncode != 0:
        pytest.skip(f"SLURM cannot be downloaded: {downloaded.stderr.strip()[-200:]}")
    root = folder / "root"
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg", "-x", str(package), str(root)], check=True)
    return root


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Run]:
    """Start a cluster; yield a function that runs a command as on its login node."""
    root = unpack(tmp_path)
    libraries = root / "usr/lib" / f"{os.uname().machine}-linux-gnu"
    for name in ("state", "spool", "bin", "work"):
        (tmp_path / name).mkdir()
    configuration = tmp_path / "slurm.conf"
    configuration.write_text(
        CONFIGURATION.format(
            host=socket.gethostname().partition(".")[0],
            libraries=libraries,
            folder=tmp_path,
            ports=find_free_ports(2),
        )
    )
    settings = {
        "SLURM_CONF": str(configuration),
        "LD_LIBRARY_PATH": f"{libraries}/slurm-wlm:{libraries}",
    }
    exports = "".join(f"export {name}={value}\n" for name, value in settings.items())
    scripts = {"uv": TRAINING}
    for name in ("sbatch", "scancel", "scontrol", "sinfo", "squeue", "srun"):
        scripts[name] = f'#!/bin/bash\n{exports}exec {root}/usr/bin/{name} "$@"\n'
    for name, text in scripts.items():
        command = tmp_path / "bin" / name
        command.write_text(text)
        command.chmod(0o755)

    environment = {**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    environment |= {"WANDB_API_KEY": "planted-1", "OTHER": "planted-2"}
    programs = root / "usr/sbin"
    daemons = (
        [f"{programs}/slurmctld-wlm", "-D"],
        [f"{programs}/slurmd-wlm", "-D", "-d", f"{programs}/slurmstepd-wlm"],
    )
    started = []
    for command_line in daemons:
        with (tmp_path / "daemons.log").open("a") as log:
            daemon = subprocess.Popen(
                command_line, env={**environment, **settings}, stdout=log, stderr=log
            )
        started.append(daemon)

    def run(*command: str) -> str:
        result = subprocess.run(
            command,
            env=environment,
            cwd=tmp_path / "work",
            capture_output=True,
            text=True,
            check=False,
        )
        return result.stdout + result.stderr

    try:
        wait_for(lambda: run("sinfo", "--noheader", "--format=%T"), "idle")
        yield run
    finally:
        run("scancel", "--user=root")
        wait_for(lambda: run("squeue", "--noheader") or "none", "none")
        for daemon in reversed(started):
            daemon.terminate()
            daemon.wait(timeout=60)


def wait_for(action: Callable[[], str], expected: str, seconds: float = 120) -> str:
    """Repeat an action until its result holds a text, and return the result."""
    deadline = time.monotonic() + seconds
    while True:
        found = action()
        if expected in found or time.monotonic() > deadline:
            return found
        time.sleep(0.5)


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.usefixtures("whole_systems")
def test_interrupted_jobs_are_requeued_and_canceled_ones_are_not(
    cluster: Run, tmp_path: Path
) -> None:
    app = (sys.executable, str(REPOSITORY / "apps" / "launch"))
    resources = ("resources.gpus=0", "resources.cpus=1", "resources.memory_gb=1")
    settings = ("target=slurm", f"target.checkout={tmp_path}", "allow_dirty=true", *resources)
    launch = (
        *app,
        *settings,
        "target.time=1",
        "secrets=[WANDB_API_KEY]",
        "target.notice_seconds=30",
    )
    work = tmp_path / "work"

    def read_log(name: str) -> str:
        path = work / f"{name}.log"
        return path.read_text() if path.exists() else ""

    assert cluster(*launch, "run.name=again", "--", "seed=1").startswith("again: submitted as job")
    assert cluster(*launch, "run.name=canceled", "--").startswith("canceled: submitted as job")
    for name in ("again", "canceled"):
        assert "attempt 1" in wait_for(lambda name=name: read_log(name), "attempt 1")  # type: ignore[misc]
    assert "stop it with" in cluster(*launch, "run.name=again", "--")

    assert cluster(*app, "stop", "canceled", "target=slurm") == "canceled: canceled\n"
    found = wait_for(lambda: cluster(*app, "status", "canceled", "target=slurm"), "CANCELLED")
    assert "CANCELLED" in found

    # The time limit of `again` comes, so SLURM interrupts it.
    state = wait_for(lambda: cluster(*app, "status", "again", "target=slurm"), "PENDING")
    assert state == "again: PENDING\n"
    cluster("scontrol", "update", "JobName=again", "StartTime=now")
    log = wait_for(lambda: read_log("again"), "finished", 240)
    assert "saved" in log
    assert "attempt 2: run apps/train seed=1 run.name=again key=planted-1 other=none" in log
    found = wait_for(lambda: cluster(*app, "status", "canceled", "target=slurm"), "CANCELLED")
    assert "attempt 2" not in read_log("canceled")
