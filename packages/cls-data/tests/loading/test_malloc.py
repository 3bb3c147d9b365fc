import subprocess
import sys
from pathlib import Path

import pytest

import cls_data.loading.malloc

# In a separate process, since the setting is permanent; from its file, since the import is slow.
_FAULTS = """
import resource, runpy, sys
if sys.argv[2] == "keep" and not runpy.run_path(sys.argv[1])["keep_freed_memory"]():
    sys.exit(77)
for _ in range(20):
    b"x" * 40_000_000  # more than the allocator keeps by default
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


def faults(mode: str) -> int:
    path = Path(cls_data.loading.malloc.__file__)
    done = subprocess.run(
        [sys.executable, "-c", _FAULTS, path, mode], capture_output=True, text=True, timeout=60
    )
    if done.returncode == 77:
        pytest.skip("this allocator does not support it")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc's allocator supports it")
def test_keep_freed_memory_avoids_page_faults() -> None:
    assert faults("keep") < 0.3 * faults("leave")
