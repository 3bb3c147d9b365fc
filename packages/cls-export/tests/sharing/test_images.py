"""A reference to an image becomes a digest, with the labels of its configuration."""

import json
from typing import Any

import pytest
from registry_server import RegistryServer, digest_of

from cls_export import RemoteBundleError, TransferError
from cls_export.sharing.images import Image, read_image
from cls_export.sharing.references import Reference

LABELS = {"org.opencontainers.image.revision": "0a" * 20}


def add_image(registry: RegistryServer, config: object, tag: str = "v1") -> str:
    """Store an image, and return its digest."""
    content = json.dumps(config).encode()
    registry.blobs[digest_of(content)] = content
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {"digest": digest_of(content), "size": len(content)},
        "layers": [],
    }
    return registry.add_manifest(json.dumps(manifest).encode(), tag).rpartition("@")[2]


def add_index(registry: RegistryServer, *entries: dict[str, Any]) -> str:
    content = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    return registry.add_manifest(content, "many").rpartition("@")[2]


def name(registry: RegistryServer, **version: str) -> Reference:
    return Reference("oci", registry.host, "models/jersey", **version)


def test_tag_and_digest_name_the_same_image_with_its_labels(registry: RegistryServer) -> None:
    digest = add_image(registry, {"config": {"Labels": LABELS}})
    assert read_image(name(registry, tag="v1")) == Image(digest, LABELS)
    assert read_image(name(registry, digest=digest)) == Image(digest, LABELS)


def test_index_is_followed_to_linux_on_x86_64(registry: RegistryServer) -> None:
    other = add_image(registry, {"config": {"Labels": {"a": "arm"}}}, "arm")
    wanted = add_image(registry, {"config": {"Labels": LABELS}}, "amd")
    arm = {"os": "linux", "architecture": "arm64", "variant": "v8"}
    amd = {"os": "linux", "architecture": "amd64"}
    entries = ({"digest": other, "platform": arm}, {"digest": wanted, "platform": amd})
    digest = add_index(registry, {"digest": "sha512:other"}, *entries)
    assert read_image(name(registry, tag="many")) == Image(digest, LABELS)
    add_index(registry, entries[0])
    assert read_image(name(registry, tag="many")).labels == {"a": "arm"}


@pytest.mark.parametrize("config", [{}, {"config": None}, {"config": {"Labels": None}}])
def test_image_without_labels_has_none(config: object, registry: RegistryServer) -> None:
    assert read_image(name(registry, digest=add_image(registry, config))).labels == {}


@pytest.mark.parametrize("changed", ["manifest", "index", "config", "longer config"])
def test_content_with_another_digest_is_refused(changed: str, registry: RegistryServer) -> None:
    image = add_image(registry, {"config": {"Labels": LABELS}})
    index = add_index(registry, {"digest": image})
    if changed == "index":
        registry.manifests[index] += b" "
    elif changed == "manifest":
        registry.manifests[image] += b" "
    elif changed == "longer config":
        registry.extra_bytes = 2**27
    else:
        digest = json.loads(registry.manifests[image])["config"]["digest"]
        registry.blobs[digest] = json.dumps({"config": {"Labels": {"a": "evil"}}}).encode()
    with pytest.raises(TransferError, match="returned something else than sha256:"):
        read_image(name(registry, digest=index))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[]", "not a container image"),
        (b"{" * 100_000, "not a container image"),
        (b'{"config": {"digest": 3}}', "config.digest"),
        (b'{"config": {"digest": "sha512:00"}}', "HTTP 404"),
        (b'{"config": {"digest": "sha256:../../../token"}}', "HTTP 404"),
        (b'{"manifests": [{"digest": "v1"}]}', "something else than v1"),
        (b'{"manifests": [{"digest": "sha256:0\\n"}]}', "Check the address"),
        (b'{"manifests": []}', "no configuration"),
        (b'{"config": {"digest": "", "size": 1e30}}', "config.size"),
    ],
)
def test_other_content_is_one_message(
    content: bytes, message: str, registry: RegistryServer
) -> None:
    registry.add_manifest(content)
    with pytest.raises((RemoteBundleError, TransferError), match=message):
        read_image(name(registry, tag="v1"))


def test_missing_image_and_missing_version_are_wrong_input(registry: RegistryServer) -> None:
    add_image(registry, {})
    with pytest.raises(RemoteBundleError, match=r"has no v2 \(HTTP 404"):
        read_image(name(registry, tag="v2"))
    with pytest.raises(RemoteBundleError, match="expected a registry, with a tag or a digest"):
        read_image(name(registry))
