import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from cls_export.contract.run_layout import RunPaths
from cls_train.composition.config import RunConfig
from cls_train.errors import RunError
from cls_train.run_folder.resume import begin_run, check_startable
from cls_train.run_folder.run_lock import release_lock

pytestmark = pytest.mark.faults

HOLD_LOCK = """
import sys, time
from pathlib import Path
from cls_export.contract.run_layout import RunPaths
from cls_train.run_folder.run_lock import acquire_lock
acquire_lock(RunPaths(Path(sys.argv[1])))
print("locked", flush=True)
time.sleep(60)
"""


@pytest.fixture
def other_process(interrupted_run: RunPaths) -> Iterator["subprocess.Popen[str]"]:
    """A process that holds the lock of the interrupted run."""
    release_lock(interrupted_run)
    command = [sys.executable, "-c", HOLD_LOCK, str(interrupted_run.path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.communicate()


def test_a_locked_run_is_refused_with_the_process_that_trains_it(
    config: RunConfig,
    make_labels: Any,
    interrupted_run: RunPaths,
    other_process: "subprocess.Popen[str]",
) -> None:
    labels = make_labels("1", "2")
    expected = f"'one' is being trained by process {other_process.pid} on .*, since 20"
    with pytest.raises(RunError, match=expected):
        check_startable(interrupted_run)
    with pytest.raises(RunError, match=expected):
        begin_run(interrupted_run, config, labels)


def test_the_lock_of_a_killed_process_can_be_acquired(
    config: RunConfig,
    make_labels: Any,
    interrupted_run: RunPaths,
    other_process: "subprocess.Popen[str]",
) -> None:
    other_process.kill()
    other_process.wait()
    check_startable(interrupted_run)
    labels = make_labels("1", "2")
    assert begin_run(interrupted_run, config, labels) == interrupted_run.last
    assert json.loads(interrupted_run.owner.read_bytes())["process"] == os.getpid()
    release_lock(interrupted_run)
