"""Images are resolved to digests by the registry, and must be built from the commit."""

import base64
import hashlib
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cls_launch.errors import LaunchError, LaunchFailedError
from cls_launch.images import COMMIT_LABEL, ImageName, check_commit, resolve_image

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LOGIN = base64.b64encode(b"me:right").decode()


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class FakeRegistry:
    """A registry on loopback with one image under the tags `v1` and `many`.

    Args:
        login: `bearer`, `basic`, or empty.
    """

    def __init__(self, login: str = "", labels: dict[str, str] | None = None) -> None:
        config = json.dumps({"config": {"Labels": labels}}).encode()
        manifest = json.dumps({"config": {"digest": digest_of(config)}}).encode()
        platform = {"os": "linux", "architecture": "amd64"}
        entries = [
            {"digest": "sha256:none", "platform": {"os": "linux", "architecture": "arm64"}},
            {"digest": digest_of(manifest), "platform": platform},
        ]
        index = json.dumps({"manifests": entries}).encode()
        base = "/v2/team/cls-train"
        self.contents = {f"{base}/blobs/{digest_of(config)}": config}
        for name, content in (("v1", manifest), ("many", index)):
            self.contents[f"{base}/manifests/{name}"] = content
            self.contents[f"{base}/manifests/{digest_of(content)}"] = content
        self.digests = {"v1": digest_of(manifest), "many": digest_of(index)}
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                registry.answer(self)

            def log_message(self, *arguments: Any) -> None:
                pass

        self.login = login
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        given = request.headers.get("Authorization", "")
        path, _, query = request.path.partition("?")
        if path == "/token":
            is_right = given == f"Basic {LOGIN}" and "scope=pull" in query
            content = json.dumps({"token": "t0k3n"}).encode()
            self.send(request, 200 if is_right else 401, content)
            return
        expected = {"bearer": "Bearer t0k3n", "basic": f"Basic {LOGIN}"}.get(self.login, given)
        if given != expected:
            bearer = f'Bearer realm="http://{self.host}/token",service="s",scope="pull"'
            challenge = bearer if self.login == "bearer" else "Basic realm=x"
            self.send(request, 401, b"", {"WWW-Authenticate": challenge})
            return
        found = self.contents.get(path)
        self.send(request, 404 if found is None else 200, found or b"")

    @staticmethod
    def send(
        request: BaseHTTPRequestHandler, code: int, content: bytes, headers: Any = None
    ) -> None:
        request.send_response(code)
        for name, value in (headers or {}).items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """Start registries, and stop them after the test."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    started = []

    def start_registry(**options: Any) -> FakeRegistry:
        started.append(FakeRegistry(**options))
        return started[-1]

    yield start_registry
    for registry in started:
        registry.server.shutdown()
        registry.server.server_close()


def log_in(folder: Path, host: str, login: str) -> None:
    (folder / "config.json").write_text(json.dumps({"auths": {host: {"auth": login}}}))


@pytest.mark.parametrize("tag", ["v1", "many"])
@pytest.mark.parametrize("login", ["", "bearer", "basic"])
def test_a_tag_becomes_a_digest_with_the_commit_of_its_label(
    start: Any, tmp_path: Path, tag: str, login: str
) -> None:
    registry = start(login=login, labels={"org.opencontainers.image.revision": COMMIT})
    log_in(tmp_path, registry.host, LOGIN)
    image = resolve_image(f"{registry.host}/team/cls-train:{tag}")
    assert image.reference == f"{registry.host}/team/cls-train@{registry.digests[tag]}"
    assert image.labels == {COMMIT_LABEL: COMMIT}
    assert resolve_image(image.reference) == image


def test_the_login_of_a_credential_helper_is_used(
    start: Any, tmp_path: Path, add_command: Any
) -> None:
    registry = start(login="bearer")
    helper = {"credHelpers": {registry.host: "mine"}}
    (tmp_path / "config.json").write_text(json.dumps(helper))
    add_command("docker-credential-mine", """echo '{"Username": "me", "Secret": "right"}'""")
    assert resolve_image(f"{registry.host}/team/cls-train:v1").labels == {}


@pytest.mark.parametrize("login", ["bearer", "basic"])
@pytest.mark.parametrize("given", [None, "d3Jvbmc6d3Jvbmc="])
def test_a_missing_or_wrong_login_is_one_message_without_the_login(
    start: Any, tmp_path: Path, login: str, given: str | None
) -> None:
    registry = start(login=login)
    if given is not None:
        log_in(tmp_path, registry.host, given)
    with pytest.raises(LaunchError, match="denies access") as error:
        resolve_image(f"{registry.host}/team/cls-train:v1")
    assert "docker login" in str(error.value)
    assert str(given) not in str(error.value)


def test_an_unknown_tag_and_an_unreachable_registry_are_named(start: Any) -> None:
    registry = start()
    with pytest.raises(LaunchError, match=r"image: oci://.*team/cls-train has no v2"):
        resolve_image(f"{registry.host}/team/cls-train:v2")
    with pytest.raises(LaunchFailedError, match=r"image: 127\.0\.0\.1:9: .*the network"):
        resolve_image("127.0.0.1:9/team/cls-train:v1")


def test_a_damaged_image_is_refused_and_with_a_digest_not_checked(start: Any) -> None:
    registry = start()
    for path in registry.contents:
        if "/blobs/" in path:
            registry.contents[path] = b'{"config": {"Labels": null}} '
    with pytest.raises(LaunchFailedError, match="something else than sha256:"):
        resolve_image(f"{registry.host}/team/cls-train:v1")
    text = f"{registry.host}/team/cls-train@{registry.digests['v1']}"
    image = resolve_image(text)
    assert image.reference == text
    assert "something else than sha256:" in str(check_commit(image, text, COMMIT))


def test_an_image_with_a_digest_and_no_label_is_taken_with_a_note(start: Any) -> None:
    registry = start()
    text = f"{registry.host}/team/cls-train@{registry.digests['v1']}"
    assert check_commit(resolve_image(text), text, COMMIT) == f"it has no label {COMMIT_LABEL}"


def test_a_missing_package_is_named_with_its_install_line(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = start()
    for name in list(sys.modules):
        if name.startswith("cls_export.sharing."):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(LaunchError, match=r"pip install 'cls-export\[registry\]'"):
        resolve_image(f"{registry.host}/team/cls-train:v1")


@pytest.mark.parametrize("checkout", [COMMIT, f"{COMMIT}-dirty"])
def test_an_image_of_another_commit_is_refused(start: Any, checkout: str) -> None:
    for label, is_right in ((COMMIT, True), (f"{'f' * 40}", False)):
        registry = start(labels={"org.opencontainers.image.revision": label})
        text = f"{registry.host}/team/cls-train:v1"
        image = resolve_image(text)
        if is_right:
            check_commit(image, text, checkout)
        else:
            with pytest.raises(LaunchError, match="was built from commit fff"):
                check_commit(image, text, checkout)


@pytest.mark.parametrize(
    ("tag", "is_right"),
    [(COMMIT[:7], True), (f"v1-{COMMIT}", True), ("v1", False), ("fffffff", False)],
)
def test_without_a_label_the_tag_must_name_the_commit(start: Any, tag: str, is_right: bool) -> None:
    registry = start()
    base = "/v2/team/cls-train/manifests"
    registry.contents[f"{base}/{tag}"] = registry.contents[f"{base}/v1"]
    text = f"{registry.host}/team/cls-train:{tag}"
    image = resolve_image(text)
    if is_right:
        check_commit(image, text, COMMIT)
    else:
        with pytest.raises(LaunchError, match="does not name the commit"):
            check_commit(image, text, COMMIT)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("team/cls-train:v1", ("docker.io", "team/cls-train", "v1", None)),
        ("localhost/a:v1", ("localhost", "a", "v1", None)),
        ("host.example:5000/a/b", ("host.example:5000", "a/b", "latest", None)),
        (f"h.io/a@sha256:{'0' * 64}", ("h.io", "a", None, f"sha256:{'0' * 64}")),
        (f"h.io/a:v1@sha256:{'0' * 64}", ("h.io", "a", "v1", f"sha256:{'0' * 64}")),
    ],
)
def test_names_of_images_are_taken_apart(text: str, expected: tuple[Any, ...]) -> None:
    name = ImageName.parse(text)
    assert (name.registry, name.repository, name.tag, name.digest) == expected


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "such as us-central1-docker.pkg.dev/"),
        (":v1", "such as us-central1-docker.pkg.dev/"),
        ("h.io/a:", "such as us-central1-docker.pkg.dev/"),
        ("a b", "such as us-central1-docker.pkg.dev/"),
        ("h.io/../a", "such as us-central1-docker.pkg.dev/"),
        ("REGISTRY/cls-train:v1", "must be in lower case"),
        ("h.io/A/b", "must be in lower case"),
        ("h.io/a@sha256:12", "64 hexadecimal digits, got 'sha256:12'"),
        ("h.io/a@md5:00", "64 hexadecimal digits, got 'md5:00'"),
        ("cls-train", "has no registry; push it"),
        ("cls-train:v1", "has no registry; push it"),
    ],
)
def test_other_texts_are_refused(text: str, hint: str) -> None:
    with pytest.raises(LaunchError) as caught:
        ImageName.parse(text)
    assert hint in str(caught.value)
    assert repr(text) in str(caught.value)
