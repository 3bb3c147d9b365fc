"""A fault in one rank of a run ends all of them soon, at whatever moment it happens.

`-m faults` runs a fault at every hook of every rank.
"""

import itertools
from pathlib import Path
from typing import Any

import pytest
from rank_faults import HOOKS, SIGNALS
from rank_processes import RankProcesses
from tiny_network import TINY_NETWORK

MAX_SECONDS = 60.0
"""Time until all ranks have ended, which includes a training of two epochs without a fault."""

CODES = {"SIGINT": 130, "SIGKILL": -9, "SIGTERM": 143, "SIGUSR1": 143, "full disk": 1, "error": 1}
"""Exit codes of the rank that fails."""

TRICKY = (("on_train_start", 1, "SIGTERM"), ("on_save_checkpoint", 1, "full disk"))
"""Moments at which the other rank once waited for half an hour."""

EVERYWHERE = tuple(
    (hook, rank, fault)
    for (hook, rank), fault in zip(
        itertools.product(HOOKS, (0, 1)), itertools.cycle([*SIGNALS, "full disk"]), strict=False
    )
)


def run_with_fault(
    folder: Path, train_command: Any, hook: str, rank: int, fault: str, *settings: str
) -> tuple[list[int], str]:
    """Train in two ranks, and return their exit codes and what they printed."""
    arguments = train_command(
        folder,
        "run",
        *TINY_NETWORK,
        "data.batch_size=6",
        "trainer.max_epochs=2",
        "trainer.strategy=ddp",
        "stages.evaluate=false",
        f"+callbacks.fault={{_target_: rank_faults.RankFault, hook: {hook}, rank: {rank}, "
        f"fault: {fault}}}",
        *settings,
    )[2:]
    processes = RankProcesses(arguments, folder / "run", 2)
    codes = processes.wait(MAX_SECONDS)
    output = "\n".join((folder / f"run-{number}.out").read_text() for number in range(2))
    return codes, output


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Test faults at every hook with `-m faults`, and the tricky ones in the default suite."""
    if "hook" in metafunc.fixturenames:
        is_full = "faults" in metafunc.config.getoption("markexpr")
        moments = (*TRICKY, *EVERYWHERE) if is_full else TRICKY
        metafunc.parametrize(("hook", "rank", "fault"), moments)


@pytest.mark.slow
@pytest.mark.faults
def test_a_fault_of_one_rank_ends_the_other(
    tmp_path: Path, train_command: Any, hook: str, rank: int, fault: str
) -> None:
    codes, output = run_with_fault(tmp_path, train_command, hook, rank, fault)
    is_over = codes == [0, 0]  # the signal came when training was complete
    assert is_over or codes[rank] == CODES[fault], output
    assert is_over or codes[1 - rank] in (1, CODES[fault]), output
    assert "this is a bug" not in output
    assert "Error: " not in output


@pytest.mark.slow
def test_a_failing_callback_ends_training_although_it_continues_without_saves(
    tmp_path: Path, train_command: Any
) -> None:
    setting = "callbacks.best_and_last.on_save_error=continue"
    codes, output = run_with_fault(
        tmp_path, train_command, "on_save_checkpoint", 0, "full disk", setting
    )
    assert codes == [1, 1], output
    assert "/full/file: No space left on device" in output
