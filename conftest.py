"""Settings of every test run: one thread per process, and two processes for the whole suite."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Before PyTorch is loaded, and inherited by every process that a test starts. Two processes of one
# thread are faster on two cores than one process of two threads, which wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A busy machine is no failure.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")

PASSED_TESTS = os.environ.get("CLS_PASSED_TESTS")
"""A file with tests that have passed in environments with fewer packages, for `.ci/run`."""

WORKERS = 2


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Run the whole suite on two processes, as `-n 2 --dist loadfile` would.

    Does nothing if paths are given, without pytest-xdist, with a debugger, or for `-m faults`,
    whose tests start two processes themselves.
    """
    is_worker = hasattr(config, "workerinput")
    runs_whole_suite = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    if is_worker or not runs_whole_suite:
        return
    option = config.option
    is_unset = getattr(option, "numprocesses", 0) is None  # 0 without pytest-xdist
    if not is_unset or option.usepdb or option.collectonly or option.markexpr == "faults":
        return
    option.numprocesses = WORKERS
    option.dist = "loadfile"
    option.loadscopereorder = False


def read_passed_tests() -> set[str]:
    """Return the IDs of the tests that have passed before."""
    return set(Path(PASSED_TESTS).read_text("utf-8").splitlines()) if PASSED_TESTS else set()


def pytest_report_header() -> list[str]:
    """Say how many tests are left out."""
    passed = read_passed_tests()
    return [f"left out, passed before: {len(passed):,} tests"] if passed else []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that have passed before."""
    passed = read_passed_tests()
    repeated = [item for item in items if item.nodeid in passed]
    if repeated:
        config.hook.pytest_deselected(items=repeated)
        items[:] = [item for item in items if item.nodeid not in passed]


@pytest.fixture(scope="session")
def short(request: pytest.FixtureRequest) -> bool:
    """Whether tests of faults run in their short form."""
    return "faults" not in request.config.getoption("markexpr")
