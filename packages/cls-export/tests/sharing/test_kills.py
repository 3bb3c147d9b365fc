"""A push or pull that is killed or interrupted leaves no half bundle, and is repeated as it is."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from registry_server import Handler, RegistryServer

from cls_export import pull_bundle, push_bundle, verify_bundle

pytestmark = pytest.mark.faults

KILLS = 8
SEED = 20


def start(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "cls_export.cli.main", *arguments],
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def read_files(folder: Path) -> dict[str, bytes]:
    files = {}
    for path in folder.rglob("*"):
        if path.is_file():
            files[path.relative_to(folder).as_posix()] = path.read_bytes()
    return files


def slow_down(handler: Handler) -> bool:
    """Give each transfer a duration in which it can be killed."""
    time.sleep(0.05)
    return False


def stop_at_random(
    process: "subprocess.Popen[str]", registry: RegistryServer, number: int, requests: int
) -> None:
    """Send a signal once the server has got a number of requests, or a bit later."""
    while len(registry.requests) < requests and process.poll() is None:
        time.sleep(0.002)
    time.sleep(random.Random(SEED + requests).uniform(0, 0.05))
    process.send_signal(number)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_stopped_pull_leaves_the_older_bundle(
    number: int, current: Path, exported: Path, registry: RegistryServer, tmp_path: Path
) -> None:
    push_bundle(current, registry.name(":v1"))
    target = tmp_path / "models/jersey"
    shutil.copytree(exported, target)
    registry.override = slow_down
    for requests in range(KILLS):
        registry.requests.clear()
        process = start("pull", registry.name(":v1"), str(target))
        stop_at_random(process, registry, number, requests)
        _, error = process.communicate(timeout=60)
        found = read_files(target)
        assert found in (read_files(exported), read_files(current))
        assert verify_bundle(target).passed
        if number != signal.SIGKILL and process.returncode != 0 and requests:
            assert process.returncode == (130 if number == signal.SIGINT else 143)
            assert error.count("\n") <= 1
            assert [path.name for path in target.parent.iterdir()] == ["jersey"]

    registry.override = lambda handler: False
    pull_bundle(registry.name(":v1"), target)
    assert read_files(target) == read_files(current)
    assert [path.name for path in target.parent.iterdir()] == ["jersey"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("kind", ["oci", "file"])
def test_stopped_push_leaves_the_tag(
    kind: str, number: int, current: Path, exported: Path, registry: RegistryServer, tmp_path: Path
) -> None:
    name = registry.name(":v1") if kind == "oci" else f"file://{tmp_path}/store:v1"
    old = push_bundle(exported, name)
    registry.override = slow_down
    for requests in range(KILLS):
        registry.requests.clear()
        process = start("push", str(current), name)
        if kind == "oci":
            stop_at_random(process, registry, number, 2 * requests)
        else:
            time.sleep(0.5 + 0.1 * requests)
            process.send_signal(number)
        process.communicate(timeout=60)
        digest = pull_bundle(name, tmp_path / "pulled")
        expected = exported if digest == old else current
        assert read_files(tmp_path / "pulled") == read_files(expected)

    registry.override = lambda handler: False
    new = push_bundle(current, name)
    assert pull_bundle(name, tmp_path / "pulled") == new
    assert [*tmp_path.rglob("*.draft")] == []
    assert read_files(tmp_path / "pulled") == read_files(current)
