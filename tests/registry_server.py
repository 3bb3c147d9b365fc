"""A container registry on the loopback interface."""

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MANIFEST = re.compile(r"/v2/(.+)/manifests/(.+)")
BLOB = re.compile(r"/v2/(.+)/blobs/(sha256:.+)")
UPLOAD = re.compile(r"/v2/(.+)/blobs/uploads/(?:1\?state=a%2Bb&digest=(.+))?")


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class RegistryServer(ThreadingHTTPServer):
    """Blobs, manifests, and tags in memory, which a test may change.

    Attributes:
        blobs: Content by digest; a test may store other content under a digest.
        manifests: Content by digest.
        tags: Digests by repository and tag.
        authorization: The header that requests must have; None for anonymous access.
        challenge: The header WWW-Authenticate of a denied request.
        tokens: For the path of a token server: the header that it needs, and the token.
        redirect: Address that serves blobs instead of this server.
        upload_address: Address that takes uploads instead of this server.
        failures: Status codes of the next requests.
        extra_bytes: Zeros that follow each blob.
        override: Called with each request first; returns whether it has answered.
        requests: Method, path, and Authorization header of each request.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}
        self.tags: dict[tuple[str, str], str] = {}
        self.authorization: str | None = None
        self.challenge = 'Basic realm="test"'
        self.tokens: dict[str, tuple[str | None, str]] = {}
        self.redirect: str | None = None
        self.upload_address = ""
        self.failures: list[int] = []
        self.extra_bytes = 0
        self.override: Callable[[Handler], bool] = lambda handler: False
        self.requests: list[tuple[str, str, str | None]] = []

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    def name(self, version: str, repository: str = "models/jersey") -> str:
        return f"oci://{self.host}/{repository}{version}"

    def add_manifest(self, content: bytes, tag: str = "v1") -> str:
        """Store a manifest as it is, and return the reference to its digest."""
        digest = digest_of(content)
        self.manifests[digest] = content
        self.tags["models/jersey", tag] = digest
        return self.name(f"@{digest}")

    def add_files(self, files: dict[str, bytes], **changes: object) -> str:
        """Store files and a manifest that lists them, as an attacker may build it."""
        layers = []
        for name, content in files.items():
            self.blobs[digest_of(content)] = content
            layers.append(describe_layer(name, content))
        manifest = {
            "schemaVersion": 2,
            "artifactType": "application/vnd.cls-export.bundle.v1",
            "layers": layers,
            **changes,
        }
        return self.add_manifest(json.dumps(manifest).encode())

    def count(self, method: str) -> int:
        return [request[0] for request in self.requests].count(method)


def describe_layer(name: str, content: bytes) -> dict[str, object]:
    return {
        "digest": digest_of(content),
        "size": len(content),
        "annotations": {"org.opencontainers.image.title": name},
    }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # otherwise each answer waits for an acknowledgment of its headers
    server: RegistryServer

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        pass

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except ConnectionError:  # the client has seen enough of an endless answer
            self.close_connection = True

    def do_GET(self) -> None:
        self._handle()

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

    def _handle(self) -> None:
        server = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        authorization = self.headers.get("Authorization")
        server.requests.append((self.command, self.path, authorization))
        if server.override(self):
            return
        if server.failures:
            self.answer(server.failures.pop(0))
        elif self.path.partition("?")[0] in server.tokens:
            self._give_token(authorization)
        elif server.authorization not in (None, authorization):
            self.answer(401, _error("UNAUTHORIZED"), {"WWW-Authenticate": server.challenge})
        elif match := UPLOAD.fullmatch(self.path):
            self._upload(match[2], body)
        elif match := BLOB.fullmatch(self.path):
            self._send_blob(match[2])
        elif match := MANIFEST.fullmatch(self.path):
            self._handle_manifest(match[1], match[2], body)
        else:
            self.answer(404)

    def _give_token(self, authorization: str | None) -> None:
        needed, token = self.server.tokens[self.path.partition("?")[0]]
        if needed not in (None, authorization):
            self.answer(401)
        else:
            self.answer(200, json.dumps({"token": token}).encode())

    def _upload(self, digest: str | None, body: bytes) -> None:
        if digest is None:  # with a state that must come back unchanged
            self.answer(
                202, b"", {"Location": f"{self.server.upload_address}{self.path}1?state=a%2Bb"}
            )
        elif digest_of(body) != digest:
            self.answer(400, _error("DIGEST_INVALID"))
        else:
            self.server.blobs[digest] = body
            self.answer(201)

    def _send_blob(self, digest: str) -> None:
        content = self.server.blobs.get(digest)
        if content is None:
            self.answer(404, _error("BLOB_UNKNOWN"))
        elif self.server.redirect is not None and self.command == "GET":
            self.answer(307, b"", {"Location": f"{self.server.redirect}{self.path}"})
        else:
            self.answer(200, content + bytes(self.server.extra_bytes))

    def _handle_manifest(self, repository: str, version: str, body: bytes) -> None:
        server = self.server
        if self.command == "PUT":
            listed = json.loads(body)
            needed = [each["digest"] for each in [listed["config"], *listed["layers"]]]
            if not all(digest in server.blobs for digest in needed):
                self.answer(400, _error("MANIFEST_BLOB_UNKNOWN"))
                return
            server.manifests[digest_of(body)] = body
            server.tags[repository, version] = digest_of(body)
            self.answer(201)
            return
        digest = server.tags.get((repository, version), version)
        has_repository = any(name == repository for name, _ in server.tags)
        content = server.manifests.get(digest) if has_repository else None
        if content is None:
            self.answer(404, _error("MANIFEST_UNKNOWN" if has_repository else "NAME_UNKNOWN"))
        else:
            self.answer(200, content)

    def answer(
        self, status: int, content: bytes = b"", headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _error(code: str) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": code.lower()}]}).encode()


@contextmanager
def serving() -> Iterator[RegistryServer]:
    with RegistryServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()
