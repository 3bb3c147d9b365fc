"""A run in several processes: the same rows and weights as in one, whatever happens to them.

`-m faults` runs the full number of repetitions; the default suite runs fewer.
"""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from forked_app import start
from rank_processes import RankProcesses
from tiny_network import TINY_NETWORK

from cls_callbacks import verify_checkpoint

SEED = 20261127
MAX_SECONDS = 60.0
"""Time until all processes have ended after one of them was killed."""

PLAIN = (
    # Without batch normalization and dropout, whose results depend on the number of devices.
    "model=torchvision",
    "model.name=squeezenet1_1",
    "model.dropout=0",
    "optimizer=sgd",
    "data.batch_size=6",
    "stages.evaluate=false",
    "trainer.strategy=ddp",
)
FAULTS = (
    "data.batch_size=6",
    "trainer.max_epochs=4",
    "callbacks.best_and_last.every_n_steps=2",
    "callbacks.best_and_last.every_minutes=1",
    "stages.evaluate=false",
    "trainer.strategy=ddp",
)
TINY_FAULTS = (*TINY_NETWORK, *FAULTS, "trainer.max_epochs=12")
"""48 steps in about two seconds."""


class Runs:
    """Named runs in one folder."""

    def __init__(self, folder: Path, command: Any, *settings: str) -> None:
        self.folder = folder
        self._command = command
        self._settings = settings

    def start(self, name: str, count: int, *more: str) -> RankProcesses:
        arguments = self._command(self.folder, name, *self._settings, *more)[2:]
        return RankProcesses(arguments, self.folder / name, count)

    def finish(self, name: str, count: int, *more: str) -> Path:
        processes = self.start(name, count, *more)
        codes = processes.wait(180)
        assert codes == [0] * count, self.read_outputs(name, count)
        return self.folder / name

    def read_outputs(self, name: str, count: int) -> str:
        outputs = [self.folder / f"{name}-{rank}.out" for rank in range(count)]
        return "\n".join(output.read_text() for output in outputs)


def load(run: Path) -> dict[str, Any]:
    checkpoint: dict[str, Any] = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    return checkpoint


def largest_difference(one: Path, other: Path) -> float:
    weights, others = load(one)["state_dict"], load(other)["state_dict"]
    assert weights.keys() == others.keys()
    return max(float((weights[name] - others[name]).abs().max()) for name in weights)


def read_metrics(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as stream:
        return list(csv.DictReader(stream))


def assert_same_epochs(run: Path, expected: Path) -> None:
    rows, expected_rows = read_metrics(run), read_metrics(expected)
    assert [row["epoch"] for row in rows] == [row["epoch"] for row in expected_rows]
    assert [row["step"] for row in rows] == [row["step"] for row in expected_rows]
    for row, expected_row in zip(rows, expected_rows, strict=True):
        for name in ("train_loss", "valid_loss", "train_top1", "valid_top1", "valid_macro_f1"):
            assert float(row[name]) == pytest.approx(float(expected_row[name]), abs=1e-4), name


@pytest.fixture(scope="module")
def epochs(short: bool) -> int:
    """Epochs of the plain runs, of four steps each."""
    return 2 if short else 13


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, train_command: Any, epochs: int) -> Path:
    """A finished plain run of one process."""
    runs = Runs(tmp_path_factory.mktemp("alone"), train_command, *PLAIN)
    return runs.finish("one", 1, f"trainer.max_epochs={epochs}")


@pytest.mark.slow
@pytest.mark.faults
def test_weights_do_not_depend_on_the_number_of_processes(
    tmp_path: Path, train_command: Any, alone: Path, epochs: int, short: bool
) -> None:
    runs = Runs(tmp_path, train_command, *PLAIN, f"trainer.max_epochs={epochs}")
    for count in (2,) if short else (2, 3):
        shared = runs.finish(f"with-{count}", count)
        assert load(shared)["global_step"] == 4 * epochs
        assert largest_difference(shared, alone) < 1e-5
        assert_same_epochs(shared, alone)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        ("loss={_target_: cls_models.FocalLoss, gamma: 0, weight: [1, 5, 9]}",),
        # The only batch has 27 images, which two devices cannot share equally.
        ("data.batch_size=100", "data.synthetic.train=9"),
    ],
    ids=["class weights", "unequal shares"],
)
def test_a_loss_is_the_mean_over_all_devices(
    tmp_path: Path, train_command: Any, settings: tuple[str, ...]
) -> None:
    own_data = f"data.root={tmp_path / 'data'}"
    runs = Runs(tmp_path, train_command, *PLAIN, "gate=none", own_data, *settings)
    alone, shared = runs.finish("one", 1), runs.finish("with-2", 2)
    assert largest_difference(shared, alone) < 1e-5
    assert_same_epochs(shared, alone)


@pytest.mark.slow
@pytest.mark.faults
def test_a_run_resumes_with_other_numbers_of_processes(
    tmp_path: Path, train_command: Any, alone: Path, epochs: int
) -> None:
    # One or two ranks receive a signal at their first step; an epoch has four.
    fault = "{_target_: rank_faults.RankFault, hook: on_train_batch_end, rank: 0, fault: SIGTERM}"
    runs = Runs(tmp_path, train_command, *PLAIN, f"trainer.max_epochs={epochs}")
    settings = ("allow_targets=rank_faults", f"+callbacks.fault={fault}")
    for count in (2, 1):
        processes = runs.start("moved", count, *settings)
        assert processes.wait(MAX_SECONDS) == [143] * count, runs.read_outputs("moved", count)
    assert load(runs.folder / "moved")["global_step"] in (2, 3)
    moved = runs.finish("moved", 3, *settings)
    assert load(moved)["global_step"] == 4 * epochs
    assert largest_difference(moved, alone) < 1e-5
    assert_same_epochs(moved, alone)


@pytest.mark.slow
@pytest.mark.parametrize("transfer", ["linear_probe", "staged"])
def test_frozen_layers_train_in_two_processes(
    tmp_path: Path, train_command: Any, transfer: str
) -> None:
    runs = Runs(tmp_path, train_command, *FAULTS, f"transfer={transfer}", "augmentation=none")
    assert runs.finish("run", 2).joinpath("fit.json").exists()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, train_command: Any) -> Path:
    """A finished run of two processes."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return Runs(folder, train_command, *TINY_FAULTS).finish("whole", 2)


@pytest.mark.slow
@pytest.mark.faults
def test_ten_sigterms_to_any_rank_stop_all_at_one_batch(
    tmp_path: Path, train_command: Any, undisturbed: Path, short: bool
) -> None:
    runs = Runs(tmp_path, train_command, *TINY_FAULTS)
    chance = random.Random(SEED)
    received = 0
    for round_number in range(1 if short else 10):
        name = f"run-{round_number}"
        processes = runs.start(name, 2)
        wait_for_file(runs.folder / name / "checkpoints/last.ckpt")  # both train
        time.sleep(chance.uniform(0, 0.5))
        processes.kill([chance.randrange(2)], signal.SIGTERM)
        started = time.monotonic()
        codes = processes.wait(MAX_SECONDS)
        assert time.monotonic() - started < MAX_SECONDS
        assert codes in ([143, 143], [0, 0]), runs.read_outputs(name, 2)
        received += codes == [143, 143]
        if codes == [143, 143]:
            verify_checkpoint(runs.folder / name / "checkpoints/last.ckpt")
            runs.finish(name, 2)
        assert_equal_runs(runs.folder / name, undisturbed)
    assert received > 0


@pytest.mark.slow
@pytest.mark.faults
def test_twenty_kills_of_one_rank_or_of_all_end_in_a_run_that_goes_on(
    tmp_path: Path, train_command: Any, undisturbed: Path, short: bool
) -> None:
    runs = Runs(tmp_path, train_command, *TINY_FAULTS)
    chance = random.Random(SEED + 1)
    kills = 0
    round_number = 0
    while kills < (1 if short else 20):
        name = f"run-{round_number}"
        round_number += 1
        for _ in range(chance.randint(1, 3)):
            processes = runs.start(name, 2)
            wait_for_first_step(runs.folder / name, processes)
            time.sleep(chance.uniform(0, 0.7))
            victims = chance.choice([[0], [1], [0, 1]])
            processes.kill(victims)
            started = time.monotonic()
            codes = processes.wait(MAX_SECONDS)
            assert time.monotonic() - started < MAX_SECONDS
            if codes == [0, 0]:
                break
            kills += 1
            assert -signal.SIGKILL in codes
            assert set(codes) <= {0, 1, -signal.SIGKILL}, runs.read_outputs(name, 2)
        if not (runs.folder / name / "summary.json").exists():
            runs.finish(name, 2)
        assert_equal_runs(runs.folder / name, undisturbed)
        assert "this is a bug" not in runs.read_outputs(name, 2)


def wait_for_first_step(run: Path, processes: RankProcesses) -> None:
    log = run / "train.log"
    lines_before = log.read_text().count("EMA decay") if log.exists() else 0
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and processes.is_running():
        if log.exists() and log.read_text().count("EMA decay") > lines_before:
            return
        time.sleep(0.05)


@contextmanager
def ended_process(command: list[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a command, and kill it at the end of the block; its processes end with it."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}  # the tiny network
    process = subprocess.Popen(command, cwd=folder, env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for_file(path: Path) -> None:
    deadline = time.monotonic() + 120
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.1)


def assert_equal_runs(run: Path, expected: Path) -> None:
    """The weights, bit by bit; running statistics are means over ranks, so they may be rounded."""
    weights, others = load(run)["state_dict"], load(expected)["state_dict"]
    for name in weights:
        if "running_" in name:
            torch.testing.assert_close(weights[name], others[name], rtol=1e-5, atol=1e-6)
        else:
            assert torch.equal(weights[name], others[name]), name
    assert_same_epochs(run, expected)


@pytest.mark.slow
def test_one_command_starts_a_process_for_each_device(
    tmp_path: Path, train_command: Any, environment: dict[str, str]
) -> None:
    settings = (*TINY_NETWORK, "trainer.devices=2", "trainer.max_epochs=1")
    command = train_command(tmp_path, "run", *settings)
    result = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    run = tmp_path / "run"
    assert (run / "summary.json").exists()
    assert (run / "export/model.onnx").exists()
    assert result.stderr.count("starting") == 1, "only the first process logs"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "message", "code"),
    [
        ("trainer.max_epochs=never", "trainer.max_epochs", 2),
        ("data.batch_size=7", "data.batch_size=7", 2),
        ("data.quarantine=missing.json", "missing.json", 2),
        ("callbacks=lr_finder", "LRFinder trains on one device", 2),
        ("+trainer.sync_batchnorm=true trainer.accelerator=auto", "sync_batchnorm", 2),
        ("data.eval_batch_size=11 trainer.limit_val_batches=0.5", "0.5 of 1 batch", 2),
        (
            "data.eval_batch_size=11 trainer.limit_val_batches=1",
            "trainer.limit_val_batches: 1 selects 12 images on 2 devices, and 11",
            2,
        ),
        ("optimizer.lr=1e30", "loss became", 1),
    ],
)
def test_an_error_of_all_processes_is_reported_once(
    tmp_path: Path, train_command: Any, setting: str, message: str, code: int
) -> None:
    runs = Runs(tmp_path, train_command, *TINY_FAULTS)
    processes = runs.start("run", 2, *setting.split())
    assert processes.wait(120) == [code, code], runs.read_outputs("run", 2)
    output = runs.read_outputs("run", 2)
    assert output.count("apps/train: ") == 1, output
    assert message in output


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("data.batch_size=7", "2 devices cannot share it equally"),
        ("callbacks=lr_finder", "LRFinder trains on one device"),
        ("trainer.devices=[0,1]", "names GPUs"),
        ("trainer.devices=13", "valid has 12 image(s), and 13 devices need one each"),
    ],
)
def test_a_check_fails_where_several_processes_would(
    tmp_path: Path, train_command: Any, setting: str, message: str
) -> None:
    size = "data.batch_size=26"
    arguments = train_command(tmp_path, "run", size, "trainer.devices=2", setting, "--check")[2:]
    output = tmp_path / "output"
    process = start(arguments, output)
    process.join(60)
    assert process.exitcode == 2, output.read_text()
    assert message in output.read_text()
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_processes_of_two_machines_train_one_run(
    tmp_path: Path, train_command: Any, alone: Path, epochs: int
) -> None:
    settings = (*PLAIN, f"trainer.max_epochs={epochs}", f"data.store={tmp_path / 'store'}")
    runs = Runs(tmp_path, train_command, *settings)
    arguments = train_command(tmp_path, "two", *settings)[2:]
    processes = RankProcesses(arguments, tmp_path / "two", 2, per_node=1)
    assert processes.wait(120) == [0, 0], runs.read_outputs("two", 2)
    assert largest_difference(tmp_path / "two", alone) < 1e-5


def list_children(process: int) -> list[int]:
    children = Path(f"/proc/{process}/task/{process}/children").read_text()
    return [int(child) for child in children.split()]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_processes_end_with_their_launcher(tmp_path: Path, train_command: Any) -> None:
    settings = (*TINY_FAULTS, "trainer.devices=2", "trainer.max_epochs=2000")
    command = train_command(tmp_path, "run", *settings)
    ranks: list[int] = []
    with ended_process(command, tmp_path) as process:
        deadline = time.monotonic() + 60
        while len(ranks) < 2 and time.monotonic() < deadline:
            ranks = list_children(process.pid)
    assert len(ranks) == 2
    while any(Path(f"/proc/{rank}").exists() for rank in ranks):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_the_launcher_saves_and_ends_with_its_code(
    tmp_path: Path, train_command: Any, number: signal.Signals, short: bool
) -> None:
    if short and number == signal.SIGUSR1:
        pytest.skip("it is forwarded like SIGTERM; run pytest -m faults")
    settings = (*TINY_FAULTS, "trainer.devices=2", "trainer.max_epochs=2000")
    command = train_command(tmp_path, "run", *settings)
    run = tmp_path / "run"
    with ended_process(command, tmp_path) as process:
        wait_for_file(run / "checkpoints/last.ckpt")
        process.send_signal(number)
        assert process.wait(60) == 143
    verify_checkpoint(run / "checkpoints/last.ckpt")
    assert not (run / "owner.json").exists()


@pytest.mark.slow
def test_torchrun_starts_and_restarts_the_app(tmp_path: Path, train_command: Any) -> None:
    _, app, *arguments = train_command(tmp_path, "run", *FAULTS)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    options = ["--nproc-per-node=2", "--max-restarts=1"]
    run = tmp_path / "run"
    with ended_process([*torchrun, *options, app, *arguments], tmp_path) as process:
        wait_for_file(run / "checkpoints/last.ckpt")
        owner = json.loads((run / "owner.json").read_text())
        os.kill(owner["process"], signal.SIGKILL)
        assert process.wait(180) == 0
    assert (run / "summary.json").exists()
    steps = [row["step"] for row in read_metrics(run)]
    assert steps == ["4", "8", "12", "16"]
