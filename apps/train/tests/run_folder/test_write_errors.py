"""Messages of failed writes."""

import errno
from pathlib import Path

import pytest

from cls_export.contract.run_layout import RunPaths
from cls_train.run_folder.write_errors import describe_os_error


@pytest.mark.parametrize("path", ["runs/one/events", b"runs/one/events"])
def test_a_failed_write_names_the_path_the_reason_and_what_to_do(path: str | bytes) -> None:
    error = OSError(errno.ENOSPC, "No space left on device", path)
    message = describe_os_error(error, RunPaths(Path("runs/one")))
    assert message == "runs/one/events: No space left on device. Free some space"
