"""The registry of Debian, which many registries are built on, accepts what is pushed."""

import base64
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from cls_export import BundleError, RemoteBundleError, pull_bundle, push_bundle
from cls_export.cli.main import main

pytestmark = pytest.mark.slow

PACKAGE = "docker-registry"
PASSWORD = "test-password"
PASSWORDS = "robot:$2b$05$abcdefghijklmnopqrstuu34chBxBG/k9ApCErH1wl/WrV4FVTS/q\n"
"""The password with bcrypt, as the program htpasswd writes it."""

CONFIG = """version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {folder}/data}}}}
http: {{addr: "{host}"}}
"""
LOGIN = """auth: {{htpasswd: {{realm: test, path: {folder}/passwords}}}}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, unpacked into a folder of the test."""
    folder = tmp_path_factory.mktemp("package")
    for tool in ("apt-get", "dpkg"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool}, which unpacks {PACKAGE}, is not installed")
    command = ["apt-get", "download", PACKAGE]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    packages = list(folder.glob("*.deb"))
    if result.returncode != 0 or not packages:
        pytest.skip(f"{PACKAGE} cannot be downloaded: {result.stderr[-200:]}")
    subprocess.run(["dpkg", "-x", str(packages[0]), str(folder)], check=True)
    return folder / "usr/bin/docker-registry"


@pytest.fixture(params=["anonymous", "password"])
def host(request: pytest.FixtureRequest, program: Path, tmp_path: Path) -> Iterator[str]:
    """A running registry."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"
    folder = tmp_path / "registry"
    folder.mkdir()
    (folder / "passwords").write_text(PASSWORDS)
    text = CONFIG + (LOGIN if request.param == "password" else "")
    (folder / "config.yml").write_text(text.format(folder=folder, host=host))
    if request.param == "password":
        log_in(host, tmp_path, PASSWORD)

    with subprocess.Popen(
        [str(program), "serve", str(folder / "config.yml")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            deadline = time.monotonic() + 30
            while not answers(host):
                assert time.monotonic() < deadline
                assert process.poll() is None
                time.sleep(0.05)
            yield host
        finally:
            process.terminate()


def answers(host: str) -> bool:
    try:
        with urlopen(f"http://{host}/", timeout=5) as response:
            return bool(response.status == 200)
    except URLError:
        return False


def log_in(host: str, tmp_path: Path, password: str) -> None:
    folder = tmp_path / "docker"
    folder.mkdir(exist_ok=True)
    auth = base64.b64encode(f"robot:{password}".encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))


def test_bundle_is_pushed_resolved_pulled_and_refused_when_tampered(
    host: str, current: Path, exported: Path, tmp_path: Path
) -> None:
    name = f"oci://{host}/models/jersey"
    digest = push_bundle(current, f"{name}:v1")
    assert push_bundle(current, f"{name}:latest") == digest
    assert push_bundle(exported, f"{name}:latest") != digest
    assert pull_bundle(f"{name}:v1", tmp_path / "by_tag") == digest
    assert pull_bundle(f"{name}@{digest}", tmp_path / "by_digest") == digest
    model = (tmp_path / "by_digest/model.onnx").read_bytes()
    assert model == (current / "model.onnx").read_bytes()

    for data in (tmp_path / "registry/data").rglob("data"):
        if data.read_bytes() == model:
            data.write_bytes(model[:-1] + bytes([model[-1] ^ 1]))
    with pytest.raises(BundleError, match=r"model\.onnx is damaged or was changed"):
        pull_bundle(f"{name}@{digest}", tmp_path / "by_digest")
    assert (tmp_path / "by_digest/model.onnx").read_bytes() == model


def test_missing_repository_and_wrong_password_are_one_message(
    host: str, current: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"oci://{host}/models/jersey"
    with pytest.raises(RemoteBundleError, match="has no v1"):
        pull_bundle(f"{name}:v1", tmp_path / "pulled")
    if not (tmp_path / "docker").exists():
        return
    log_in(host, tmp_path, "s3cret")
    assert main(["push", str(current), f"{name}:v1"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "denies access to models/jersey" in error
    assert "s3cret" not in error
