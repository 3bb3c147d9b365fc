import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("killed_writer.py")
MEMORY = Path("/dev/shm")


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.skipif(not MEMORY.is_dir(), reason="needs a second file system for temporary files")
def test_checkpoints_survive_thirty_kills_during_writes(tmp_path: Path, short: bool) -> None:
    kills = "10" if short else "30"
    # Temporary files are on another file system, where a rename to the target would be a copy.
    assert MEMORY.stat().st_dev != tmp_path.stat().st_dev
    with tempfile.TemporaryDirectory(dir=MEMORY) as temporary:
        result = subprocess.run(
            [sys.executable, str(SCRIPT), str(tmp_path / "last.ckpt"), kills],
            env={**os.environ, "TMPDIR": temporary},
            capture_output=True,
            text=True,
            check=False,
        )
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 0, "no kill interrupted a write"
