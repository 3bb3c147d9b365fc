"""A registry that lies cannot write outside of the folder, fill memory, or steal credentials."""

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from registry_server import Handler, RegistryServer, describe_layer, digest_of

from cls_export import BundleError, RemoteBundleError, TransferError, pull_bundle, push_bundle
from cls_export.cli.main import main
from cls_export.sharing.http_client import iterate_body
from cls_export.sharing.manifest import MAX_MANIFEST_BYTES


@pytest.fixture
def files(current: Path) -> dict[str, bytes]:
    content = {}
    for path in current.rglob("*"):
        if path.is_file():
            content[path.relative_to(current).as_posix()] = path.read_bytes()
    return content


def refuse(source: str, tmp_path: Path, message: str) -> None:
    """Check that nothing is written, not even outside of the target."""
    root = tmp_path / "root"
    root.mkdir(exist_ok=True)
    with pytest.raises(BundleError, match=message):
        pull_bundle(source, root / "a/b/pulled")
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert written == []


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "/tmp/evil",
        "golden/../../evil",
        "golden/..",
        "golden/a/b.png",
        "golden\\..\\evil",
        "golden/.hidden",
        "golden/",
        "golden",
        "./model.onnx",
        "model.onnx/",
        "MODEL.onnx",
        "golden/GOLDEN.json",
        "golden/nul\0.png",
        "golden/a:stream",
        "golden/CON.png",
        "golden/nul",
        "golden/Com1.tar.png",
        "golden/dot.",
        "a b " * 10_000,
        "golden/new\nline.png",
        f"golden/{'a' * 300}.png",
        "evil.py",
        "",
    ],
)
def test_names_outside_of_a_bundle_are_refused_before_anything_is_fetched(
    name: str, files: dict[str, bytes], registry: RegistryServer, tmp_path: Path
) -> None:
    source = registry.add_files({**files, name: b"evil"})
    refuse(source, tmp_path, "a bundle contains|differ only in upper and lower case")
    assert len(registry.requests) == 1


def test_image_that_golden_json_does_not_list_is_refused(
    files: dict[str, bytes], registry: RegistryServer, tmp_path: Path
) -> None:
    source = registry.add_files({**files, "golden/payload.bin": b"evil"})
    refuse(source, tmp_path, r"'golden/payload\.bin', which golden/golden\.json does not list")


@pytest.mark.parametrize(
    "name", ["model.onnx", "labels_mapping.json", "golden/golden.json", "golden/001.png"]
)
def test_missing_file_is_named(
    name: str, files: dict[str, bytes], registry: RegistryServer, tmp_path: Path
) -> None:
    del files[name]
    refuse(registry.add_files(files), tmp_path, f"{name} is missing")


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("model.onnx", 2**31),
        ("labels_mapping.json", 2**24 + 1),
        ("golden/golden.json", 2**40),
        ("golden/000.png", 2**62),
    ],
)
def test_stated_size_is_checked_before_anything_is_fetched(
    name: str, size: int, files: dict[str, bytes], registry: RegistryServer, tmp_path: Path
) -> None:
    layers = [describe_layer(each, content) for each, content in files.items() if each != name]
    layers.append({**describe_layer(name, b"x"), "size": size})
    refuse(registry.add_files(files, layers=layers), tmp_path, f"{name} has {size:,} bytes")
    assert len(registry.requests) == 1


def test_bytes_beyond_the_stated_size_are_not_read(
    files: dict[str, bytes], registry: RegistryServer, tmp_path: Path
) -> None:
    source = registry.add_files(files)
    registry.extra_bytes = 2**28
    refuse(source, tmp_path, r"golden/golden\.json is damaged or was changed")


def layer(**changes: Any) -> dict[str, Any]:
    return {"layers": [{**describe_layer("model.onnx", b"x"), **changes}]}


def image_of(config: str) -> dict[str, Any]:
    return {"artifactType": "", "config": {"mediaType": config}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"artifactType": "application/vnd.other"},
            "not a bundle but an artifact of",
        ),
        ({"artifactType": 3}, "no valid OCI manifest"),
        (image_of("application/vnd.docker.container.image.v1+json"), "but a container image"),
        (image_of("application/vnd.oci.image.config.v1+json"), "but a container image"),
        (image_of("application/vnd.cncf.helm.config.v1+json"), "of the type '.*helm"),
        ({"artifactType": "", "manifests": []}, "but a list of images for several platforms"),
        ({"schemaVersion": 1}, "schemaVersion"),
        (layer(mediaType="application/vnd.oci.image.layer.v1.tar+zstd"), "is compressed"),
        ({"layers": {}}, "layers"),
        ({"layers": [describe_layer("model.onnx", b"x")] * 1_001}, "1000 items"),
        ({"layers": [describe_layer("model.onnx", b"x")] * 2}, "lists 'model.onnx' twice"),
        (layer(size=-1), "size"),
        (layer(size="1"), "size"),
        (layer(digest="sha256:../../../../etc/passwd"), "digest"),
        (layer(digest=f"sha512:{'0' * 64}"), "digest"),
        (layer(digest=f"sha256:{'0' * 64}\n"), "digest"),
        (layer(annotations={}), "has no file name"),
        (layer(annotations=None), "annotations"),
    ],
)
def test_wrong_manifest_is_refused(
    changes: dict[str, Any],
    message: str,
    files: dict[str, bytes],
    registry: RegistryServer,
    tmp_path: Path,
) -> None:
    refuse(registry.add_files(files, **changes), tmp_path, message)


@pytest.mark.parametrize(
    "content",
    [b"", b"null", b"[]", b"\xff\xfe", b"{" * 100_000, b'{"layers":' + b"[" * 100_000],
)
def test_manifest_that_is_no_json_object_is_refused(
    content: bytes, registry: RegistryServer, tmp_path: Path
) -> None:
    refuse(registry.add_manifest(content), tmp_path, "no valid OCI manifest")


def test_endless_manifest_is_refused(registry: RegistryServer, tmp_path: Path) -> None:
    source = registry.add_manifest(bytes(MAX_MANIFEST_BYTES + 1))
    refuse(source, tmp_path, "larger than 4,194,304 bytes")


def test_consistent_forgery_of_a_model_fails_its_own_checks(
    files: dict[str, bytes], registry: RegistryServer, tmp_path: Path
) -> None:
    files["model.onnx"] = files["model.onnx"][:-1] + b"?"
    refuse(registry.add_files(files), tmp_path, r"jersey@sha256.*: model\.onnx is damaged")


def test_credentials_do_not_follow_a_redirect_to_another_server(
    current: Path,
    registry: RegistryServer,
    other_registry: RegistryServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registry.authorization = "Basic dXNlcjpzZWNyZXQ="
    auths = {registry.host: {"auth": "dXNlcjpzZWNyZXQ="}}
    monkeypatch.setenv("DOCKER_AUTH_CONFIG", json.dumps({"auths": auths}))
    digest = push_bundle(current, registry.name(":v1"))
    other_registry.blobs = dict(registry.blobs)
    registry.redirect = f"http://{other_registry.host}"
    assert pull_bundle(registry.name(":v1"), tmp_path / "pulled") == digest
    assert other_registry.count("GET") == len(set(registry.blobs)) - 1  # all but the empty config
    assert {header for _, _, header in other_registry.requests} == {None}


def test_credentials_do_not_follow_an_upload_to_another_server(
    current: Path,
    registry: RegistryServer,
    other_registry: RegistryServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registry.authorization = "Basic dXNlcjpzZWNyZXQ="
    auths = {registry.host: {"auth": "dXNlcjpzZWNyZXQ="}}
    monkeypatch.setenv("DOCKER_AUTH_CONFIG", json.dumps({"auths": auths}))
    registry.upload_address = f"http://{other_registry.host}"
    with pytest.raises(TransferError, match="did not store the manifest"):
        push_bundle(current, registry.name(":v1"))
    assert other_registry.count("PUT") > 0
    assert {header for _, _, header in other_registry.requests} == {None}


@pytest.mark.parametrize("challenge", ["Basic", "Bearer"])
@pytest.mark.parametrize("way", ["redirect", "upload"])
def test_another_server_cannot_ask_for_the_credentials(
    way: str,
    challenge: str,
    current: Path,
    registry: RegistryServer,
    other_registry: RegistryServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    auths = {registry.host: {"auth": "dXNlcjpzZWNyZXQ="}}
    monkeypatch.setenv("DOCKER_AUTH_CONFIG", json.dumps({"auths": auths}))
    if way == "redirect":
        push_bundle(current, registry.name(":v1"))

    def ask(handler: Handler) -> bool:
        realm = f'{challenge} realm="http://{other_registry.host}/token"'
        handler.answer(401, b"", {"WWW-Authenticate": realm})
        return True

    other_registry.override = ask
    registry.redirect = registry.upload_address = f"http://{other_registry.host}"
    action = partial(push_bundle, current, registry.name(":v1"))
    if way == "redirect":
        action = partial(pull_bundle, registry.name(":v1"), tmp_path / "pulled")
    with pytest.raises(TransferError, match=r"127\.0\.0\.1: HTTP 401"):
        action()
    assert other_registry.requests
    assert {header for _, _, header in other_registry.requests} == {None}
    assert not any("token" in path for _, path, _ in other_registry.requests)


def test_body_of_a_redirect_is_not_read(
    current: Path, registry: RegistryServer, tmp_path: Path
) -> None:
    digest = push_bundle(current, registry.name(":v1"))

    def redirect(handler: Handler) -> bool:
        if "/blobs/" not in handler.path or handler.path.endswith("?signed"):
            handler.path = handler.path.removesuffix("?signed")
            return False
        handler.send_response(307)
        handler.send_header("Location", f"{handler.path}?signed")
        handler.send_header("Content-Length", str(2**40))
        handler.end_headers()
        handler.close_connection = True
        return True

    registry.override = redirect
    assert pull_bundle(registry.name(":v1"), tmp_path / "pulled") == digest


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("http://registry.example.com/x", "http://registry.example.com, which is not https"),
        ("ftp://127.0.0.1/x", "ftp://127.0.0.1, which is not https"),
        ("http://a..b/x", "a..b, which is not https"),
        ("https://a..b/x", "Check the address"),
        ("http://[::1", "HTTP 307"),
        ("//", "redirects more than 5 times"),
        ("", "redirects more than 5 times"),
    ],
)
def test_redirect_to_a_wrong_address_is_one_message(
    location: str, message: str, registry: RegistryServer, tmp_path: Path
) -> None:
    def redirect(handler: Handler) -> bool:
        handler.answer(307, b"", {"Location": location})
        return True

    registry.override = redirect
    with pytest.raises((RemoteBundleError, TransferError), match=re.escape(message)):
        pull_bundle(registry.name(":v1"), tmp_path / "pulled")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\0\xff\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
        b"HTTP/1.1 206 Partial Content\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 204 No Content\r\n\r\n",
    ],
)
def test_nonsense_in_place_of_http_is_one_message(
    answer: bytes, registry: RegistryServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def send(handler: Handler) -> bool:
        handler.wfile.write(answer)
        handler.close_connection = True
        return True

    registry.override = send
    assert main(["pull", registry.name(":v1"), str(tmp_path / "pulled")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"{registry.host}" in error


def test_slow_transfer_is_given_up_after_a_minute() -> None:
    httpx2 = pytest.importorskip("httpx2")
    clock = iter(range(0, 1_000, 30))
    request = httpx2.Request("GET", "https://registry.example.com/x")
    response = httpx2.Response(200, content=(b"x" for _ in range(100)), request=request)
    with pytest.raises(TransferError, match=r"registry\.example\.com sent 3 bytes in 120 seconds"):
        list(iterate_body(response, lambda: next(clock)))


def test_digest_of_the_test_server_is_that_of_registries() -> None:
    assert digest_of(b"{}") == (
        "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    )
