"""What the ranks of a training exchange in its steps."""

from pathlib import Path
from typing import Any

import pytest
from rank_processes import RankProcesses
from tiny_network import TINY_NETWORK


@pytest.mark.slow
def test_no_step_asks_the_first_rank(tmp_path: Path, train_command: Any) -> None:
    # On GPUs, the answer takes until the step before has ended.
    counter = f"{{_target_: broadcast_counter.BroadcastCounter, folder: {tmp_path}}}"
    arguments = train_command(
        tmp_path,
        "run",
        *TINY_NETWORK,
        "allow_targets=[tiny_network,broadcast_counter]",
        "data.batch_size=6",
        "trainer.max_epochs=1",
        "trainer.strategy=ddp",
        "stages.evaluate=false",
        f"+callbacks.counter={counter}",
    )[2:]
    processes = RankProcesses(arguments, tmp_path / "run", 2)
    assert processes.wait(120) == [0, 0]
    for rank in (0, 1):
        assert (tmp_path / f"broadcasts-{rank}").read_text() == "0"
