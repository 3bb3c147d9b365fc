"""Registries on the loopback interface, and no credentials of whoever runs the tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from registry_server import RegistryServer, serving

from cls_export.sharing import store as stores


@pytest.fixture
def registry() -> Iterator[RegistryServer]:
    with serving() as server:
        yield server


@pytest.fixture
def other_registry() -> Iterator[RegistryServer]:
    with serving() as server:
        yield server


@pytest.fixture(autouse=True)
def no_own_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ignore the credentials of whoever runs the tests, and do not wait between attempts."""
    for name in ("DOCKER_AUTH_CONFIG", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(stores, "RETRY_SECONDS", (0.0, 0.0))
