"""A registry that lies cannot write outside of the folder, fill memory, or steal credentials."""

import json
from pathlib import Path
from typing import Any

import pytest
from registry_server import RegistryServer, describe_layer, digest_of

from cls_export import BundleError, RemoteBundleError, TransferError, pull_bundle, push_bundle
from cls_export.sharing.manifest import MAX_MANIFEST_BYTES
from cls_export.sharing.references import parse_reference
from cls_export.sharing.registry import Registry


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"artifactType": "application/vnd.other"},
            "not a bundle but an artifact of",
        ),
        ({"artifactType": 3}, "no valid OCI manifest"),
        ({"schemaVersion": 1}, "schemaVersion"),
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


def test_redirect_to_plain_http_is_refused() -> None:
    httpx2 = pytest.importorskip("httpx2")
    registry = Registry(parse_reference("oci://registry.example.com/models/jersey:v1"))
    try:
        with pytest.raises(RemoteBundleError, match="without TLS"):
            registry._client._refuse_plain_http(httpx2.URL("http://registry.example.com/x"))
        registry._client._refuse_plain_http(httpx2.URL("https://storage.example.com/x"))
    finally:
        registry.close()


def test_digest_of_the_test_server_is_that_of_registries() -> None:
    assert digest_of(b"{}") == (
        "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    )
