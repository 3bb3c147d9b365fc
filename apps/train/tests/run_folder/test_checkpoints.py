import re
from pathlib import Path
from typing import Any

import pytest
import torch
from loguru import logger

from cls_callbacks import AtomicCheckpointIO
from cls_export.contract.run_layout import RunPaths
from cls_train.errors import RunError
from cls_train.run_folder.checkpoints import choose_checkpoint, load_checkpoint

pytestmark = pytest.mark.faults


def test_choose_checkpoint_warns_and_returns_an_older_one_when_the_last_is_damaged(
    interrupted_run: RunPaths,
) -> None:
    run = interrupted_run
    save = AtomicCheckpointIO().save_checkpoint
    save({"step": 1}, run.previous)
    save({"step": 2}, run.last)
    assert choose_checkpoint(run) == run.last

    lines: list[Any] = []
    run.last.write_bytes(run.last.read_bytes()[:-1] + b"x")
    sink = logger.add(lines.append, format="{level}: {message}")
    assert choose_checkpoint(run) == run.previous
    logger.remove(sink)
    expected = r"WARNING: .*last.ckpt: SHA-256 does not match .*; resuming from previous.ckpt"
    assert re.search(expected, str(lines[0]))

    run.previous.unlink()
    with pytest.raises(RunError, match=r"last.ckpt: SHA-256 does not match"):
        choose_checkpoint(run)


@pytest.mark.parametrize("last", ["missing", "damaged"])
def test_choose_checkpoint_finishes_a_save_that_was_interrupted_between_two_renames(
    interrupted_run: RunPaths, last: str
) -> None:
    run = interrupted_run
    save = AtomicCheckpointIO().save_checkpoint
    save({"step": 2}, run.previous)
    save({"step": 3}, run.next)
    if last == "damaged":
        run.last.write_bytes(b"x")
    else:
        run.last.unlink()
    assert choose_checkpoint(run) == run.last
    assert load_checkpoint(run.last) == {"step": 3}
    assert not run.next.exists()


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("location", ["state_dict", "config", "whole file"])
def test_load_checkpoint_does_not_execute_a_pickled_payload(tmp_path: Path, location: str) -> None:
    created, path = tmp_path / "created", tmp_path / "best.ckpt"
    payload = Payload(created)
    content: Any = payload
    if location != "whole file":
        content = {"state_dict": {}, location: {"weight": payload}}
    torch.save(content, path)
    with pytest.raises(RunError, match=r"best.ckpt: not a readable PyTorch file"):
        load_checkpoint(path)
    assert not created.exists()
