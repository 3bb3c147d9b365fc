import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch

from cls_callbacks import verify_checkpoint

WRITER = Path(__file__).with_name("killed_writer.py")
MEMORY = Path("/dev/shm")


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.skipif(not MEMORY.is_dir(), reason="needs a second file system for temporary files")
def test_thirty_kills_during_the_write_corrupt_nothing_with_temporary_files_on_another_file_system(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    assert MEMORY.stat().st_dev != tmp_path.stat().st_dev
    short = "faults" not in request.config.getoption("markexpr")
    moments, path, while_writing = random.Random(2), tmp_path / "last.ckpt", 0
    with tempfile.TemporaryDirectory(dir=MEMORY) as temporary:
        for _ in range(3 if short else 30):
            writer = subprocess.Popen(
                [sys.executable, str(WRITER), str(path)],
                env={**os.environ, "TMPDIR": temporary},
                stdout=subprocess.PIPE,
            )
            assert writer.stdout is not None
            writer.stdout.readline()  # one is whole
            time.sleep(moments.uniform(0, 0.3))
            writer.kill()
            written = [int(line) for line in writer.stdout.read().split()]
            writer.wait()
            writer.stdout.close()
            while_writing += any(tmp_path.glob(".last.ckpt.*"))
            verify_checkpoint(path)
            saved = torch.load(path, weights_only=True)
            assert bool((saved["all"] == saved["number"]).all())
            assert not written or saved["number"] >= written[-1]
    assert short or while_writing > 0, "no kill fell into a write"
    print(f"{while_writing} kills fell into a write")
