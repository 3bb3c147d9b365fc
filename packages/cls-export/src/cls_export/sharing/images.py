"""Read which image a reference names, and the labels of its configuration."""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial

from pydantic import BaseModel, Field, ValidationError

from cls_export.contract.errors import (
    BundleError,
    RemoteBundleError,
    TransferError,
    format_validation_error,
)
from cls_export.sharing.manifest import MAX_MANIFEST_BYTES, Blob
from cls_export.sharing.references import REGISTRY_SCHEME, Reference
from cls_export.sharing.registry import Registry
from cls_export.sharing.store import with_retries


@dataclass(frozen=True, slots=True)
class Image:
    """A container image that cannot change.

    Attributes:
        digest: `sha256:` and 64 digits, of the index if there are images for several platforms.
        labels: The labels of its configuration, such as `org.opencontainers.image.revision`; of
            several images, those of the one for Linux on x86-64, or of the first one.
    """

    digest: str
    labels: Mapping[str, str]


def read_image(reference: Reference) -> Image:
    """Resolve a tag or digest of a registry, and read the labels. Each digest is checked.

    Raises:
        RemoteBundleError: There is no such image, or access is denied.
        TransferError: The network or the registry failed, or it returns something else.
    """
    version = reference.digest or reference.tag
    if reference.scheme != REGISTRY_SCHEME or version is None:
        raise RemoteBundleError(f"{reference}: expected a registry, with a tag or a digest")
    try:
        with closing(Registry(reference)) as registry:
            return _read_image(registry, version, reference)
    except ValidationError as error:
        problems = format_validation_error(error)
        raise TransferError(f"{reference} is not a container image: {problems}") from error
    except BundleError as error:  # too large
        raise TransferError(str(error)) from error


def _read_image(registry: Registry, version: str, reference: Reference) -> Image:
    content = with_retries(partial(registry.get_manifest, version))
    digest = Blob.of(content).digest
    _compare(reference.digest or digest, content, reference)
    manifest = _Manifest.model_validate_json(content)
    if manifest.manifests:
        chosen = _choose_platform(manifest.manifests).digest
        content = with_retries(partial(registry.get_manifest, chosen))
        _compare(chosen, content, reference)
        manifest = _Manifest.model_validate_json(content)
    if manifest.config is None:
        raise TransferError(f"{reference} is not a container image: it has no configuration")

    blob = Blob(manifest.config.digest, manifest.config.size)
    content = with_retries(lambda: _read_blob(registry, blob))
    _compare(blob.digest, content, reference)
    labels = _Config.model_validate_json(content).config
    return Image(digest, (labels.labels if labels is not None else None) or {})


def _read_blob(registry: Registry, blob: Blob) -> bytes:
    content = b""
    with closing(registry.read_blob(blob)) as chunks:
        for chunk in chunks:
            content += chunk
            if len(content) > blob.size:
                break
    return content


def _compare(expected: str, content: bytes, reference: Reference) -> None:
    if Blob.of(content).digest != expected:
        raise TransferError(f"{reference}: the registry returned something else than {expected}")


class _Platform(BaseModel):
    os: str = ""
    architecture: str = ""


class _Descriptor(BaseModel):
    digest: str = Field(max_length=200)  # of any algorithm, as long as it is not chosen
    size: int = Field(default=MAX_MANIFEST_BYTES, ge=0, le=MAX_MANIFEST_BYTES)
    platform: _Platform | None = None


class _Manifest(BaseModel):
    config: _Descriptor | None = None
    manifests: list[_Descriptor] = []


class _Labels(BaseModel):
    labels: dict[str, str] | None = Field(default=None, alias="Labels")


class _Config(BaseModel):
    config: _Labels | None = None


def _choose_platform(entries: list[_Descriptor]) -> _Descriptor:
    wanted = _Platform(os="linux", architecture="amd64")
    for entry in entries:
        if entry.platform == wanted:
            return entry
    return entries[0]
