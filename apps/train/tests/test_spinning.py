"""Training on a CPU shares a busy machine: its waiting threads sleep soon."""

import os
import subprocess
import sys

import pytest

from cls_train.process import SPIN_COUNT, shorten_spinning


@pytest.fixture(autouse=True)
def restored_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "before")
        monkeypatch.delenv(name)


def test_spinning_is_short_by_default() -> None:
    shorten_spinning()
    assert os.environ["GOMP_SPINCOUNT"] == str(SPIN_COUNT)


@pytest.mark.parametrize(
    ("name", "value"), [("GOMP_SPINCOUNT", "7"), ("OMP_WAIT_POLICY", "active")]
)
def test_values_of_the_user_are_kept(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    shorten_spinning()
    assert os.environ[name] == value
    assert os.environ.get("GOMP_SPINCOUNT") in (None, "7")


def test_variable_is_set_before_torch_is_imported() -> None:
    check = "import sys; import cls_train.main, cls_train.process; print('torch' in sys.modules)"
    process = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, timeout=60, check=True
    )
    assert process.stdout.strip() == "False"
