"""The OCI manifest of a bundle: the name, size, and SHA-256 of each file.

The same manifest is stored in registries and in object storage, so a bundle has the same digest
everywhere. It has no time stamp: pushing a bundle again gives the same digest.
Format: https://github.com/opencontainers/image-spec/blob/main/manifest.md
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cls_export.contract.bundle_layout import (
    CARD_FILE,
    GOLDEN_FILE,
    GOLDEN_FOLDER,
    LABELS_FILE,
    MAX_CARD_BYTES,
    MAX_GOLDEN_BYTES,
    MAX_GOLDEN_IMAGE_BYTES,
    MAX_LABELS_BYTES,
    MAX_MODEL_BYTES,
    MODEL_FILE,
)
from cls_export.contract.errors import BundleError, format_validation_error
from cls_export.contract.files import open_regular, sha256_hex
from cls_export.contract.text import short_name

MANIFEST_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"
ARTIFACT_TYPE: Final = "application/vnd.cls-export.bundle.v1"
MAX_MANIFEST_BYTES: Final = 4 * 2**20
"""Registries need not store larger ones."""
MAX_BUNDLE_BYTES: Final = 4 * 2**30
MAX_FILES: Final = 1_000

GOLDEN_LIST: Final = f"{GOLDEN_FOLDER}/{GOLDEN_FILE}"
REQUIRED_FILES: Final = (LABELS_FILE, MODEL_FILE, GOLDEN_LIST)

_EMPTY_TYPE: Final = "application/vnd.oci.empty.v1+json"
_COMPRESSED = ("+gzip", "+zstd", ".tar", ".tar.gzip")
_TITLE: Final = "org.opencontainers.image.title"
_MEDIA_TYPES = {".json": "application/json", ".md": "text/markdown"}
_LIMITS = {
    MODEL_FILE: MAX_MODEL_BYTES,
    LABELS_FILE: MAX_LABELS_BYTES,
    CARD_FILE: MAX_CARD_BYTES,
    GOLDEN_LIST: MAX_GOLDEN_BYTES,
}
_CHUNK_BYTES = 2**20
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?|.*\.", re.IGNORECASE)
"""Names that Windows gives to devices, and those whose last dot it removes."""
_GOLDEN_IMAGE = re.compile(rf"{GOLDEN_FOLDER}/[A-Za-z0-9_][A-Za-z0-9._-]{{0,99}}")


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes in a store.

    Attributes:
        digest: `sha256:` and 64 hexadecimal digits.
        size: Number of bytes.
    """

    digest: str
    size: int

    @classmethod
    def of(cls, content: bytes) -> "Blob":
        """Describe some bytes."""
        return cls(f"sha256:{sha256_hex(content)}", len(content))

    @classmethod
    def of_file(cls, path: Path, max_bytes: int | None = None) -> "Blob":
        """Describe a regular file; raise a BundleError if it cannot be read, or is larger."""
        digest = hashlib.sha256()
        size = 0
        with open_regular(path, error=BundleError, max_bytes=max_bytes) as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
        return cls(f"sha256:{digest.hexdigest()}", size)


EMPTY_CONFIG: Final = b"{}"
"""An artifact has no configuration, but a manifest needs one."""


def get_size_limit(name: str) -> int | None:
    """Return the largest size of a file in a bundle, in bytes; None if no bundle has this file."""
    if name in _LIMITS:
        return _LIMITS[name]
    if not _GOLDEN_IMAGE.fullmatch(name) or _RESERVED.fullmatch(name.partition("/")[2]):
        return None
    return MAX_GOLDEN_IMAGE_BYTES


def check_files(sizes: Mapping[str, int], source: str) -> None:
    """Check the names and sizes of the files of a bundle.

    Raises:
        BundleError: A file is missing, unknown, or too large, or there are too many.
    """
    missing = [name for name in REQUIRED_FILES if name not in sizes]
    if missing:
        raise BundleError(f"{source}: {missing[0]} is missing, so this is not a bundle")
    for name, size in sizes.items():
        limit = get_size_limit(name)
        if limit is None:
            raise BundleError(
                f"{source} contains {short_name(name)!r}; a bundle contains {LABELS_FILE}, "
                f"{MODEL_FILE}, {CARD_FILE}, and the images of {GOLDEN_FOLDER}/ only"
            )
        if size > limit:
            raise BundleError(f"{source}: {name} has {size:,} bytes, at most {limit:,} are read")
    if len(sizes) > MAX_FILES or sum(sizes.values()) > MAX_BUNDLE_BYTES:
        raise BundleError(
            f"{source}: {len(sizes):,} files with {sum(sizes.values()):,} bytes; a bundle has at "
            f"most {MAX_FILES:,} files and {MAX_BUNDLE_BYTES:,} bytes"
        )
    if len({name.casefold() for name in sizes}) < len(sizes):
        raise BundleError(f"{source}: names of files differ only in upper and lower case")


def build_manifest(files: Mapping[str, Blob], annotations: Mapping[str, str]) -> bytes:
    """Return the manifest of a bundle, given its files by name."""
    layers = []
    for name, blob in sorted(files.items()):
        suffix = name[name.rfind(".") :]
        layers.append(
            {
                "mediaType": _MEDIA_TYPES.get(suffix, "application/octet-stream"),
                "digest": blob.digest,
                "size": blob.size,
                "annotations": {_TITLE: name},
            }
        )
    config = Blob.of(EMPTY_CONFIG)
    content = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": ARTIFACT_TYPE,
        "config": {"mediaType": _EMPTY_TYPE, "digest": config.digest, "size": config.size},
        "layers": layers,
        "annotations": dict(sorted(annotations.items())),
    }
    return json.dumps(content, indent=1).encode()


class _Layer(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)

    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    size: int = Field(ge=0)
    media_type: str = Field(alias="mediaType", default="")
    annotations: dict[str, str]


class _Manifest(BaseModel):
    model_config = ConfigDict(frozen=True)

    schema_version: Literal[2] = Field(alias="schemaVersion")
    layers: Annotated[list[_Layer], Field(max_length=MAX_FILES)]


class _Config(BaseModel):
    media_type: str = Field(alias="mediaType", default="")


class _Kind(BaseModel):
    artifact_type: str = Field(alias="artifactType", default="")
    config: _Config | None = None
    manifests: object = None

    def describe(self) -> str:
        """Return what a manifest that is not a bundle seems to be."""
        if self.manifests is not None:
            return "a list of images for several platforms"
        config = self.config.media_type if self.config is not None else ""
        if config.endswith(("container.image.v1+json", "oci.image.config.v1+json")):
            return "a container image"
        return f"an artifact of the type {short_name(self.artifact_type or config, 100)!r}"


def parse_manifest(content: bytes, source: str) -> dict[str, Blob]:
    """Return the files of a bundle by name, in the order of the manifest.

    Raises:
        BundleError: The manifest is damaged, belongs to something else, or lists a file that is
            unknown, too large, or outside of the bundle.
    """
    try:
        kind = _Kind.model_validate_json(content)
        if kind.artifact_type != ARTIFACT_TYPE:
            raise BundleError(
                f"{source} is not a bundle but {kind.describe()}; cls-export push writes artifacts "
                f"of the type {ARTIFACT_TYPE}"
            )
        layers = _Manifest.model_validate_json(content).layers
    except ValidationError as error:
        problems = format_validation_error(error)
        raise BundleError(f"{source} has no valid OCI manifest: {problems}") from error
    return _name_files(layers, source)


def _name_files(layers: Sequence[_Layer], source: str) -> dict[str, Blob]:
    files: dict[str, Blob] = {}
    for layer in layers:
        name = layer.annotations.get(_TITLE)
        if name is None:
            raise BundleError(f"{source}: the layer {layer.digest} has no file name ({_TITLE})")
        if layer.media_type.endswith(_COMPRESSED):
            raise BundleError(f"{source}: {short_name(name)!r} is compressed or an archive")
        if name in files:
            raise BundleError(f"{source} lists {short_name(name)!r} twice")
        files[name] = Blob(layer.digest, layer.size)
    check_files({name: blob.size for name, blob in files.items()}, source)
    return files
