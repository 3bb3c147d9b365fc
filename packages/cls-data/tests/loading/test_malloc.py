import subprocess
import sys
from pathlib import Path

import pytest

import cls_data.loading.malloc

# In a process of its own: what is set stays set. Run from its file, since importing the package takes seconds.
_FAULTS = """
import resource, runpy, sys
if sys.argv[2] == "keep" and not runpy.run_path(sys.argv[1])["keep_freed_memory"]():
    sys.exit(77)
for _ in range(20):
    b"x" * 40_000_000  # more than the allocator keeps by itself
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


def faults(mode: str) -> int:
    path = Path(cls_data.loading.malloc.__file__)
    done = subprocess.run(
        [sys.executable, "-c", _FAULTS, path, mode], capture_output=True, text=True, timeout=60
    )
    if done.returncode == 77:
        pytest.skip("this allocator cannot be told")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator alone can be told")
def test_memory_that_was_freed_is_used_again_without_new_pages() -> None:
    assert faults("keep") < 0.3 * faults("leave")
