"""C1, C2, C10: SIGKILL at random moments from the start of the process to its end.

The same command always goes on, and the finished run equals an undisturbed one.
"""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from forked_app import start
from same_runs import assert_no_drafts, assert_same_run
from tiny_network import TINY_NETWORK

from cls_export.contract.run_layout import RunPaths
from cls_train.run_folder.state import RunState, read_state

pytestmark = [pytest.mark.slow, pytest.mark.faults]

SEED = 20261127
SETTINGS = (
    *TINY_NETWORK,
    "data.batch_size=4",
    "callbacks.best_and_last.every_n_steps=2",
)
"""Six steps per epoch."""

NAME = "killed"
"""All runs have this name in folders of their own, because files of the run contain it."""


class Outcome(NamedTuple):
    kills: Counter[str]
    runs: int


class Lab(NamedTuple):
    folder: Path
    command: Callable[..., list[str]]

    def start(self, number: str, *more: str) -> Any:
        root = self.folder / number
        root.mkdir(exist_ok=True)
        store = f"data.store={root / 'store'}"
        arguments = self.command(root, NAME, *SETTINGS, store, *more, quick=False)[2:]
        return start(arguments, root / "output.txt")

    def finish(self, number: str) -> None:
        process = self.start(number)
        process.join(180)
        assert process.exitcode == 0, self.read_output(number)

    def run(self, number: str) -> RunPaths:
        return RunPaths(self.folder / number / NAME)

    def read_output(self, number: str) -> str:
        return (self.folder / number / "output.txt").read_text()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, train_command: Any) -> tuple[Lab, float]:
    """A finished run, and the seconds it took."""
    lab = Lab(tmp_path_factory.mktemp("kills"), train_command)
    check = lab.start("warm-up", "--check")  # writes the data set
    check.join(120)
    assert check.exitcode == 0, lab.read_output("warm-up")
    started = time.monotonic()
    lab.finish("whole")
    return lab, time.monotonic() - started


def test_a_run_killed_at_forty_moments_ends_like_an_undisturbed_one(
    undisturbed: tuple[Lab, float], short: bool
) -> None:
    lab, seconds = undisturbed
    kills_per_chain = 1 if short else 20

    def chain(which: int) -> Outcome:
        moments = random.Random(SEED + which)
        kills: Counter[str] = Counter()
        runs = 0
        while kills.total() < kills_per_chain:
            number = f"{which}-{runs}"
            runs += 1
            kills += kill_repeatedly(lab, number, moments, seconds, kills_per_chain - kills.total())
            if read_state(lab.run(number)) is not RunState.FINISHED:
                lab.finish(number)
            assert_same_run(lab.run(number), lab.run("whole"))
            assert_no_drafts(lab.folder / number)
        return Outcome(kills, runs)

    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(chain, (0, 1)))

    kills = outcomes[0].kills + outcomes[1].kills
    assert kills.total() == 2 * kills_per_chain
    runs = outcomes[0].runs + outcomes[1].runs
    print(f"seed {SEED}: {kills.total()} kills of {runs} runs, by state: {dict(kills)}")


def kill_repeatedly(
    lab: Lab, number: str, moments: random.Random, seconds: float, limit: int
) -> Counter[str]:
    """Kill the run until it is finished or `limit` is reached; count the kills by state."""
    kills: Counter[str] = Counter()
    run = lab.run(number)
    while kills.total() < limit and read_state(run) is not RunState.FINISHED:
        process = lab.start(number)
        process.join(moments.uniform(0, seconds))
        # The machine may kill one process, or all at once.
        is_group_killed = moments.random() < 0.5
        if process.exitcode is None:
            kill = os.killpg if is_group_killed and owns_group(process.pid) else os.kill
            kill(process.pid, signal.SIGKILL)
        process.join(60)
        if process.exitcode == -signal.SIGKILL:
            kills[read_state(run).name.lower()] += 1
        else:
            assert process.exitcode == 0, lab.read_output(number)
    return kills


def owns_group(process: int) -> bool:
    try:
        return os.getpgid(process) == process
    except ProcessLookupError:
        return False
