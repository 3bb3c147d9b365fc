"""Bundles on real object-storage servers on loopback: push, pull by digest, tampering, denial."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from remote_servers import Server, gcs_server, install_packages, s3_server

pytestmark = pytest.mark.slow

BUNDLE = Path(__file__).parents[1] / "packages/cls-export/tests/golden/bundle_v3"

WRITE = """
import fsspec, sys
with fsspec.open(sys.argv[1], "wb") as stream:
    stream.write(b"x" * 100)
"""


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packages")
    install_packages(folder)
    return folder


@pytest.fixture(scope="module", params=["s3", "gs"])
def server(
    request: pytest.FixtureRequest, packages: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    start = s3_server if request.param == "s3" else gcs_server
    with start(packages, tmp_path_factory.mktemp("server") / "data") as running:
        yield running


def run(
    server: Server, packages: Path, *arguments: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **server.environment, "PYTHONPATH": str(packages), **variables}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=120
    )


def test_bundle_travels_by_digest_and_tampering_is_refused(
    server: Server, packages: Path, tmp_path: Path
) -> None:
    command = ("-m", "cls_export.cli.main")
    store = f"{server.url}/models"
    pushed = run(server, packages, *command, "push", str(BUNDLE), f"{store}:v1")
    assert pushed.returncode == 0, pushed.stderr
    digest = pushed.stdout.strip()

    target = tmp_path / "pulled"
    for version in (f"@{digest}", ":v1"):
        pulled = run(server, packages, *command, "pull", f"{store}{version}", str(target))
        assert (pulled.returncode, pulled.stdout) == (0, pushed.stdout), pulled.stderr
    model = (target / "model.onnx").read_bytes()
    assert model == (BUNDLE / "model.onnx").read_bytes()

    blob = f"{store}/blobs/sha256/{hashlib.sha256(model).hexdigest()}"
    written = run(server, packages, "-c", WRITE, blob)
    assert written.returncode == 0, written.stderr
    refused = run(server, packages, *command, "pull", f"{store}@{digest}", str(target))
    assert refused.returncode == 2
    assert "model.onnx is damaged or was changed" in refused.stderr
    assert (target / "model.onnx").read_bytes() == model
    repaired = run(server, packages, *command, "push", str(BUNDLE), f"{store}:v1")
    assert (repaired.returncode, repaired.stdout) == (0, pushed.stdout), repaired.stderr
    shutil.rmtree(target)
    pulled = run(server, packages, *command, "pull", f"{store}@{digest}", str(target))
    assert pulled.returncode == 0, pulled.stderr


def test_missing_version_and_bucket_are_one_message(
    server: Server, packages: Path, tmp_path: Path
) -> None:
    bucket = f"{server.url.partition('://')[0]}://no-such-bucket/models:v1"
    for source in (f"{server.url}/models:v9", bucket):
        result = run(
            server, packages, "-m", "cls_export.cli.main", "pull", source, str(tmp_path / "x")
        )
        assert result.returncode == 2, result.stderr
        assert f"{source} does not exist" in result.stderr
        assert result.stderr.count("\n") == 1


def test_unreachable_storage_is_one_message(server: Server, packages: Path, tmp_path: Path) -> None:
    nowhere = "http://127.0.0.1:9"
    result = run(
        server,
        packages,
        *("-m", "cls_export.cli.main", "pull", f"{server.url}/models:v1", str(tmp_path / "x")),
        AWS_ENDPOINT_URL=nowhere,
        AWS_ENDPOINT_URL_S3=nowhere,
        FSSPEC_S3_ENDPOINT_URL=nowhere,
        STORAGE_EMULATOR_HOST=nowhere,
    )
    assert result.returncode == 1, result.stderr
    assert "Check the address and the network" in result.stderr
    assert result.stderr.count("\n") == 1


def test_wrong_secret_is_one_message_that_does_not_show_it(
    server: Server, packages: Path, tmp_path: Path
) -> None:
    if not server.url.startswith("s3"):
        pytest.skip("the emulator of Google Cloud Storage accepts everybody")
    result = run(
        server,
        packages,
        *("-m", "cls_export.cli.main", "push", str(BUNDLE), f"{server.url}/models:v1"),
        AWS_SECRET_ACCESS_KEY="s3cret",
    )
    assert result.returncode == 2, result.stderr
    assert "access denied" in result.stderr
    assert "s3cret" not in result.stderr
    assert result.stderr.count("\n") == 1
