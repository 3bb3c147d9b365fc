"""Runs that outlive their machine: train, lose the machine, run the same command elsewhere.

A machine is a run root of its own, which is deleted with everything in it. `-m faults` loses more
machines, stops the server for longer, and waits until a lease expires.
"""

import functools
import importlib.util
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from forked_app import add_packages, start
from remote_servers import Server, gcs_server, install_packages, s3_server
from same_runs import assert_same_run
from tiny_network import TINY_NETWORK

from cls_callbacks import RemoteStorageError, open_remote_folder
from cls_export.contract.run_layout import RunPaths
from cls_train.run_folder.state import RunState, read_state

pytestmark = pytest.mark.slow

SEED = 20261127
NAME = "spot"
SETTINGS = (
    *TINY_NETWORK,
    "data.batch_size=4",
    "callbacks.best_and_last.every_n_steps=2",
)
"""Six steps per epoch."""


LOSSES = 10
"""Machines that are lost with each kind of storage."""

NOT_FETCHED = frozenset({"checkpoints/previous.ckpt", "checkpoints/previous.ckpt.sha256"})
"""Fetched only if last.ckpt is damaged."""


class Lab(NamedTuple):
    """Starts commands on machines that share remote storage and a decoded data set."""

    folder: Path
    packages: Path
    command: Any

    def start(
        self,
        machine: str,
        remote: str,
        *overrides: str,
        environment: dict[str, str] | None = None,
        hostname: str | None = None,
    ) -> Any:
        root = self.folder / machine
        root.mkdir(exist_ok=True)
        arguments = self.command(
            root,
            NAME,
            *SETTINGS,
            f"data.store={self.folder / 'store'}",
            f"run.remote={remote}",
            *overrides,
        )[2:]
        prepare = functools.partial(add_packages, self.packages, hostname)
        output = self.folder / f"{machine}.txt"
        return start(arguments, output, prepare=prepare, environment=environment)

    def finish(self, machine: str, remote: str, *overrides: str, **options: Any) -> RunPaths:
        process = self.start(machine, remote, *overrides, **options)
        process.join(300)
        assert process.exitcode == 0, self.read_output(machine)
        return self.run(machine)

    def run(self, machine: str) -> RunPaths:
        return RunPaths(self.folder / machine / NAME)

    def lose(self, machine: str) -> None:
        """Delete the disk of a machine."""
        shutil.rmtree(self.folder / machine, ignore_errors=True)

    def read_output(self, machine: str) -> str:
        return (self.folder / f"{machine}.txt").read_text()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, train_command: Any) -> Lab:
    folder = tmp_path_factory.mktemp("remote")
    return Lab(folder, folder / "packages", train_command)


@pytest.fixture(scope="module")
def undisturbed(lab: Lab) -> tuple[RunPaths, float]:
    """A finished run that was never interrupted, and the seconds that it took."""
    remote = lab.folder / "undisturbed-remote"
    remote.mkdir()
    check = lab.start("warm-up", str(remote), "--check")  # writes the data set
    check.join(120)
    assert check.exitcode == 0, lab.read_output("warm-up")
    started = time.monotonic()
    run = lab.finish("undisturbed", str(remote))
    return run, time.monotonic() - started


@pytest.fixture(scope="module")
def packages(lab: Lab) -> Path:
    """The servers and clients, installed once."""
    install_packages(lab.packages)
    return lab.packages


@pytest.fixture(scope="module")
def s3(packages: Path, lab: Lab) -> Iterator[Server]:
    with s3_server(packages, lab.folder / "s3") as server:
        yield server


@pytest.fixture(scope="module")
def gcs(packages: Path, lab: Lab) -> Iterator[Server]:
    with gcs_server(packages, lab.folder / "gcs") as server:
        yield server


class Losses(NamedTuple):
    """What happened to the machines of a run, and how long SIGTERM took to the exit."""

    by_signal: Counter[str]
    seconds: list[float]


def lose_machines(
    lab: Lab,
    remote: str,
    label: str,
    moments: random.Random,
    seconds: float,
    limit: int,
    environment: dict[str, str],
) -> Losses:
    """Train on one machine after the other, each of which disappears, until the run is finished."""
    by_signal: Counter[str] = Counter()
    terminations = []
    for number in range(limit):
        machine = f"{label}-{number}"
        process = lab.start(machine, remote, environment=environment)
        process.join(moments.uniform(0.1 * seconds, seconds))
        name = moments.choice(("SIGTERM", "SIGKILL"))
        sent_at = time.monotonic()
        if process.exitcode is None:
            os.kill(process.pid, getattr(signal, name))
        process.join(90)
        if process.exitcode in (0, 2):  # 2: the machine before finished it, and was then killed
            return Losses(by_signal, terminations)
        assert process.exitcode in (143, -signal.SIGKILL), lab.read_output(machine)
        by_signal[name] += 1
        if name == "SIGTERM":
            terminations.append(time.monotonic() - sent_at)
        lab.lose(machine)
    return Losses(by_signal, terminations)


def test_a_run_in_a_folder_continues_after_its_machine_disappeared(
    lab: Lab, undisturbed: tuple[RunPaths, float]
) -> None:
    expected, _ = undisturbed
    remote = lab.folder / "mount"
    remote.mkdir()
    process = lab.start("first", str(remote))
    last = remote / NAME / "checkpoints/last.ckpt"
    deadline = time.monotonic() + 120
    while not last.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGTERM)
    process.join(60)
    assert process.exitcode == 143, lab.read_output("first")
    assert "pushed everything to" in lab.read_output("first")
    lab.lose("first")

    run = lab.finish("second", str(remote))
    assert "fetching" in lab.read_output("second")
    assert "resuming from" in lab.read_output("second")
    assert_same_run(run, expected, NOT_FETCHED)

    process = lab.start("third", str(remote))
    process.join(120)
    assert process.exitcode == 2
    assert "is finished" in lab.read_output("third")
    assert_same_run(lab.run("third"), expected, NOT_FETCHED)


def test_a_finished_run_that_was_not_pushed_is_pushed_by_the_same_command(
    lab: Lab, undisturbed: tuple[RunPaths, float]
) -> None:
    expected, _ = undisturbed
    remote = lab.folder / "new-mount"
    remote.mkdir()
    shutil.copytree(expected.path, lab.folder / "unpushed" / NAME)
    run = lab.finish("unpushed", str(remote))
    assert "is finished, and is pushed now" in lab.read_output("unpushed")
    assert (remote / NAME / "summary.json").read_bytes() == run.summary.read_bytes()


@pytest.mark.faults
@pytest.mark.parametrize("kind", ["s3", "gcs"])
def test_a_run_whose_machines_keep_disappearing_ends_like_an_undisturbed_one(
    lab: Lab,
    undisturbed: tuple[RunPaths, float],
    kind: str,
    request: pytest.FixtureRequest,
    short: bool,
) -> None:
    server: Server = request.getfixturevalue(kind)
    expected, seconds = undisturbed
    moments = random.Random(SEED)
    planned = 1 if short else LOSSES
    losses: Counter[str] = Counter()
    terminations = []
    runs = 0
    while losses.total() < planned:
        runs += 1
        remote = f"{server.url}/{runs}"
        label = f"{kind}-{runs}"
        lost = lose_machines(
            lab, remote, label, moments, seconds, planned - losses.total(), server.environment
        )
        losses += lost.by_signal
        terminations += lost.seconds
        machine = f"{label}-end"
        process = lab.start(machine, remote, environment=server.environment)
        process.join(300)  # fetches it if it is finished
        assert process.exitcode in (0, 2), lab.read_output(machine)
        assert read_state(lab.run(machine)) is RunState.FINISHED, lab.read_output(machine)
        assert_same_run(lab.run(machine), expected, NOT_FETCHED)
    print(f"{kind}: {dict(losses)} in {runs} runs of {seconds:.1f} s; seconds from SIGTERM to")
    print("the exit, everything pushed:", [round(each, 2) for each in sorted(terminations)])


@pytest.mark.faults
def test_training_goes_on_while_the_server_is_down_and_pushes_catch_up(
    lab: Lab, s3: Server, short: bool
) -> None:
    remote = f"{s3.url}/outage"
    outage, training_time = (3, "00:00:00:12") if short else (30, "00:00:01:15")
    longer = (
        "trainer.max_epochs=4000",
        f"trainer.max_time={training_time}",
        "stages.evaluate=false",
    )
    process = lab.start("outage", remote, *longer, environment=s3.environment)
    run = lab.run("outage")
    deadline = time.monotonic() + 120
    while not run.last.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1)
    s3.stop()
    step_before = run.last.stat().st_mtime_ns
    time.sleep(outage)
    assert run.last.stat().st_mtime_ns > step_before, "training has stopped"
    s3.start()
    process.join(300)
    output = lab.read_output("outage")
    assert process.exitcode == 0, output
    assert output.count("could not push") == 1, output
    assert "caught up, all files are pushed" in output

    other = lab.start("after-outage", remote, *longer, environment=s3.environment)
    other.join(120)
    assert other.exitcode == 2
    assert "is finished (" in lab.read_output("after-outage")
    assert lab.run("after-outage").last.read_bytes() == run.last.read_bytes()


@pytest.mark.faults
@pytest.mark.parametrize("check", [(), ("--check",)])
@pytest.mark.parametrize(
    ("url", "environment", "expected"),
    [
        ("s3://no-such-bucket/runs", {}, "the bucket does not exist"),
        ("s3://runs", {"AWS_SECRET_ACCESS_KEY": "wrong"}, "access denied"),
        ("s3://runs", {"AWS_ACCESS_KEY_ID": "wrong"}, "Set AWS_ACCESS_KEY_ID and"),
        ("s3://runs", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "Could not connect to"),
    ],
)
def test_storage_that_cannot_be_used_is_one_message_before_the_first_step(
    lab: Lab,
    s3: Server,
    url: str,
    environment: dict[str, str],
    expected: str,
    check: tuple[str, ...],
) -> None:
    machine = f"wrong-{abs(hash((url, tuple(environment), check)))}"
    variables = {**s3.environment, **environment}
    process = lab.start(machine, url, *check, environment=variables)
    process.join(120)
    output = lab.read_output(machine)
    assert process.exitcode == 2, output
    messages = [line for line in output.splitlines() if line.startswith("apps/train: ")]
    assert len(messages) == 1
    assert expected in messages[0]
    assert "Traceback" not in output
    assert not lab.run(machine).path.exists()


@pytest.mark.faults
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="renames the host")
def test_two_machines_never_train_one_run_and_the_second_goes_on_when_the_first_is_dead(
    lab: Lab, s3: Server, short: bool
) -> None:
    remote = f"{s3.url}/contended"
    longer = ("trainer.max_epochs=4000", "stages.evaluate=false")
    first = lab.start("owner", remote, *longer, environment=s3.environment, hostname="machine-one")
    deadline = time.monotonic() + 120
    while not lab.run("owner").last.exists() and time.monotonic() < deadline:
        time.sleep(0.1)

    same_host = lab.start(
        "same", remote, *longer, environment=s3.environment, hostname="machine-one"
    )
    other = lab.start("other", remote, *longer, environment=s3.environment, hostname="machine-two")
    for process, machine in ((same_host, "same"), (other, "other")):
        process.join(90)
        assert process.exitcode == 2, lab.read_output(machine)
        assert f"is being trained by process {first.pid} on machine-one" in lab.read_output(machine)
        assert not lab.run(machine).path.exists()

    os.kill(first.pid, signal.SIGKILL)
    first.join()
    if short:  # the lease expires after a minute
        return
    third = lab.start("third-one", remote, *longer, environment=s3.environment, hostname="three")
    fourth = lab.start("fourth", remote, *longer, environment=s3.environment, hostname="four")
    deadline = time.monotonic() + 150
    while third.is_alive() and fourth.is_alive() and time.monotonic() < deadline:
        time.sleep(0.2)
    alive = [process for process in (third, fourth) if process.is_alive()]
    assert len(alive) == 1, "one of two takers wins"
    os.kill(alive[0].pid, signal.SIGTERM)
    alive[0].join(90)
    codes = {process.exitcode for process in (third, fourth)}
    assert codes == {2, 143}, lab.read_output("third-one") + lab.read_output("fourth")


@pytest.mark.parametrize(("protocol", "extra"), [("s3", "s3"), ("gs", "gcs")])
def test_a_missing_package_is_named_with_its_extra(protocol: str, extra: str) -> None:
    package = {"s3": "s3fs", "gs": "gcsfs"}[protocol]
    if importlib.util.find_spec(package) is not None:
        pytest.skip(f"{package} is installed")
    with pytest.raises(RemoteStorageError, match=f"uv run --extra {extra} apps/train") as caught:
        open_remote_folder(f"{protocol}://bucket", "run")
    assert f"pip install 'cls-callbacks[{extra}]'" in str(caught.value)
