"""Fixtures: a data set in shards, in a folder and on a web server."""

import contextlib
import functools
import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cls_data.shards import index
from cls_data.shards.writing import write_shards
from cls_export.contract.preprocessing import Preprocessing

NUM_ROWS = 1000
CLASSES = ["10", "2", "1"]


class RangeHandler(http.server.SimpleHTTPRequestHandler):
    """Serves ranges of files, which the one of the standard library does not."""

    def do_GET(self) -> None:
        self.server.requests.append(self.path)  # type: ignore[attr-defined]
        if self.server.is_broken:  # type: ignore[attr-defined]
            self.send_error(503)
            return
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        status = 200
        stated = self.headers.get("Range", "")
        if stated:
            start, _, end = stated.removeprefix("bytes=").partition("-")
            content = content[int(start) : int(end) + 1]
            status = 206
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    """A web server that can be told to fail, and that records the paths of requests."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        handler = functools.partial(RangeHandler, directory=str(folder))
        super().__init__(("127.0.0.1", 0), handler)
        self.is_broken = False
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture(scope="session")
def sharded(
    tmp_path_factory: pytest.TempPathFactory,
    write_set: Callable[..., Path],
    picture: Any,
    preprocessing: Preprocessing,
) -> tuple[Path, Path]:
    """Return a data root and the folder of its shards: 8 blocks of 128 rows in 3 shards."""
    root = tmp_path_factory.mktemp("sharded")
    images = [picture(number) for number in range(40)]
    rows = [
        (f"{number}.png", images[number % 40], CLASSES[number % 40 % 3])
        for number in range(NUM_ROWS)
    ]
    valid = [(f"{number}.png", picture(100 + number), CLASSES[number % 3]) for number in range(9)]
    write_set(root, {"train": rows, "valid": valid})
    folder = tmp_path_factory.mktemp("shards")
    with _small_blocks():
        write_shards(root, str(folder), preprocessing)
    return root, folder


@pytest.fixture
def small_blocks() -> Iterator[None]:
    """Write the blocks and shards of `sharded`."""
    with _small_blocks():
        yield


@contextlib.contextmanager
def _small_blocks() -> Iterator[None]:
    """Write blocks of 128 rows and shards of 3 blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "_BLOCK_BYTES", 1)
        patch.setattr(index, "_SHARD_BYTES", 3 * 128 * 3 * 16 * 16)
        yield


@pytest.fixture
def server(sharded: tuple[Path, Path]) -> Iterator[Server]:
    """Serve the shards."""
    server = Server(sharded[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()
