"""Bundles in a model repository of the Hugging Face Hub, against a small hub on loopback."""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

TOKEN = "hf_s3cret"
COMMIT = "c" * 40
NEW_COMMIT = "d" * 40
INFO = re.compile(r"/api/models/owner/jersey(?:/revision/([^?]+))?(?:\?.*)?")
FILE = re.compile(r"/owner/jersey/resolve/([^/]+)/(.+)")


class Hub(ThreadingHTTPServer):
    """One repository with one commit; only the endpoints that are used."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.files: dict[str, bytes] = {".gitattributes": b"*.onnx filter=lfs"}
        self.stated_sizes: dict[str, int] = {}
        self.large_files: dict[str, str] = {}
        self.commit = COMMIT
        self.requests: list[str] = []


class HubHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    server: Hub

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        pass

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        if self.path.startswith("/api/models/owner/jersey/tree/"):
            listed = [
                {"type": "file", "path": name, "size": 1, "oid": "0"} for name in self.server.files
            ]
            self._answer(200, json.dumps(listed).encode())
        elif match := INFO.fullmatch(self.path):
            is_known = match[1] in (None, "main", self.server.commit)
            self._answer(200 if is_known else 404, self._describe())
        elif (match := FILE.fullmatch(self.path)) and match[1] == self.server.commit:
            self._answer(200, self.server.files[match[2]])
        else:
            self._answer(404)

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append(self.path)
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer(401)
        elif "/preupload/" in self.path:
            files = []
            for each in json.loads(body)["files"]:
                files.append({"path": each["path"], "uploadMode": "regular", "shouldIgnore": False})
            self._answer(200, json.dumps({"files": files}).encode())
        elif "/commit/" in self.path:
            self._commit(body)
        else:  # validate-yaml
            self._answer(200, b'{"errors": [], "warnings": []}')

    def _commit(self, body: bytes) -> None:
        for line in body.splitlines():
            change = json.loads(line)
            if change["key"] == "file":
                content = base64.b64decode(change["value"]["content"])
                self.server.files[change["value"]["path"]] = content
            elif change["key"] == "deletedFile":
                del self.server.files[change["value"]["path"]]
        self.server.commit = NEW_COMMIT
        url = f"http://127.0.0.1:{self.server.server_port}/owner/jersey/commit/{NEW_COMMIT}"
        answer = {"commitUrl": url, "commitOid": NEW_COMMIT, "success": True}
        self._answer(200, json.dumps(answer).encode())

    def _describe(self) -> bytes:
        siblings = []
        for name, content in self.server.files.items():
            size = self.server.stated_sizes.get(name, len(content))
            sibling: dict[str, object] = {"rfilename": name, "size": size, "blobId": "0" * 40}
            if name in self.server.large_files:
                digest = self.server.large_files[name]
                sibling["lfs"] = {"sha256": digest, "size": size, "pointerSize": 130}
            siblings.append(sibling)
        content = {"id": "owner/jersey", "sha": self.server.commit, "siblings": siblings}
        return json.dumps(content).encode()

    def _answer(self, status: int, content: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def filled_hub(hub: Hub, current: Path) -> Hub:
    for path in current.rglob("*"):
        if path.is_file():
            hub.files[path.relative_to(current).as_posix()] = path.read_bytes()
    hub.large_files["model.onnx"] = hashlib.sha256(hub.files["model.onnx"]).hexdigest()
    return hub


def run(hub: Hub, home: Path, *arguments: str, token: str = TOKEN) -> tuple[int, str, str]:
    variables = {
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}",
        "HF_HOME": str(home / "hf"),
        "HF_TOKEN": token,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1",
    }
    result = subprocess.run(
        [sys.executable, "-m", "cls_export.cli.main", *arguments],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return result.returncode, result.stdout, result.stderr


def test_bundle_is_committed_and_comes_back_by_commit(
    hub: Hub, current: Path, tmp_path: Path
) -> None:
    hub.files["golden/999.png"] = b"of an older bundle"
    code, output, error = run(hub, tmp_path, "push", str(current), "hf://owner/jersey")
    assert (code, output) == (0, f"{NEW_COMMIT}\n"), error
    assert f"cls-export pull hf://owner/jersey@{NEW_COMMIT} DIR" in error

    target = tmp_path / "pulled"
    source = f"hf://owner/jersey@{NEW_COMMIT}"
    code, output, error = run(hub, tmp_path, "pull", source, str(target))
    assert (code, output) == (0, f"{NEW_COMMIT}\n"), error
    for path in current.rglob("*"):
        if path.is_file():
            assert (target / path.relative_to(current)).read_bytes() == path.read_bytes()
    assert not (target / ".gitattributes").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("unknown file", "contains 'evil.py'"),
        ("other model", "model.onnx is damaged or was changed"),
        ("large file", "labels_mapping.json has"),
        ("longer file", "labels_mapping.json is damaged or was changed"),
        ("unlisted image", "'golden/evil.png', which golden/golden.json does not list"),
        ("other commit", "does not exist, or access is denied (HTTP 404)"),
    ],
)
def test_hostile_repository_is_refused(
    change: str, message: str, filled_hub: Hub, tmp_path: Path
) -> None:
    model = filled_hub.files["model.onnx"]
    if change == "unknown file":
        filled_hub.files["evil.py"] = b"evil"
    elif change == "other model":
        filled_hub.files["model.onnx"] = model[:-1] + b"?"
    elif change == "large file":
        filled_hub.stated_sizes["labels_mapping.json"] = 2**24 + 1
    elif change == "longer file":
        filled_hub.stated_sizes["labels_mapping.json"] = 100
    elif change == "unlisted image":
        filled_hub.files["golden/evil.png"] = b"evil"
    else:
        filled_hub.commit = NEW_COMMIT
    target = tmp_path / "pulled"
    code, _, error = run(filled_hub, tmp_path, "pull", f"hf://owner/jersey@{COMMIT}", str(target))
    assert code == 2, error
    assert message in error
    assert error.count("\n") == 1
    assert not target.exists()


def test_denied_push_and_unreachable_hub_are_one_message_without_the_token(
    hub: Hub, current: Path, tmp_path: Path
) -> None:
    code, _, error = run(hub, tmp_path, "push", str(current), "hf://owner/jersey", token="hf_other")
    assert code == 2
    assert "access is denied (HTTP 401)" in error
    assert "hf_other" not in error
    hub.server_close()
    code, _, error = run(hub, tmp_path, "pull", "hf://owner/jersey", str(tmp_path / "pulled"))
    assert code == 1
    assert "Check the network" in error
    assert error.count("\n") == 1
    assert TOKEN not in error
