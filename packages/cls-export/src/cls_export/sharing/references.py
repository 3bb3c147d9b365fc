"""References to shared bundles, such as `oci://registry/repository@sha256:…`."""

import re
from dataclasses import dataclass
from typing import Final

from cls_export.contract.errors import RemoteBundleError

FOLDER_SCHEME: Final = "file"
STORAGE_SCHEMES: Final = ("gs", "s3", FOLDER_SCHEME)
HUB_SCHEME: Final = "hf"
REGISTRY_SCHEME: Final = "oci"

FORMS: Final = (
    "oci://REGISTRY/REPOSITORY:TAG, gs://BUCKET/FOLDER:TAG, s3://BUCKET/FOLDER:TAG, "
    "file:///FOLDER:TAG, or hf://OWNER/REPOSITORY@REVISION"
)
"""Accepted references, for messages and help texts."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:]+\])(?::([0-9]{{1,5}}))?")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_MAX_HOST_CHARACTERS = 253
_MAX_PORT = 65_535
_REPOSITORY_PART = re.compile(r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*")
_OBJECT_PART = re.compile(r"[\w+=,~-][\w.+=,~ -]*")
_HUB_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

_MAX_CHARACTERS = 1_000


@dataclass(frozen=True, slots=True)
class Reference:
    """The place of a shared bundle.

    Attributes:
        scheme: `oci`, `gs`, `s3`, `file`, or `hf`.
        host: The registry, the bucket, or the owner; empty for `file`.
        path: The repository, or the folder.
        tag: A name that may move to another bundle; of the hub, a branch or tag.
        digest: `sha256:` and 64 digits; of the hub, the commit. At least one of the two is None.
    """

    scheme: str
    host: str
    path: str
    tag: str | None = None
    digest: str | None = None

    @property
    def name(self) -> str:
        """The reference without its tag or digest."""
        return f"{self.scheme}://{self.host}/{self.path}"

    def pin(self, digest: str) -> str:
        """Return the text of the reference to exactly one bundle."""
        return f"{self.name}@{digest}"

    def __str__(self) -> str:
        if self.digest is not None:
            return self.pin(self.digest)
        if self.tag is None:
            return self.name
        separator = "@" if self.scheme == HUB_SCHEME else ":"
        return f"{self.name}{separator}{self.tag}"


def is_digest(text: str) -> bool:
    """Whether a text is `sha256:` and 64 hexadecimal digits in lower case."""
    return _DIGEST.fullmatch(text) is not None


def parse_reference(text: str) -> Reference:
    """Read a reference.

    Raises:
        RemoteBundleError: It has another form, or contains a password.
    """
    scheme, separator, rest = text.partition("://")
    if len(text) > _MAX_CHARACTERS:
        raise RemoteBundleError(f"a reference has at most {_MAX_CHARACTERS:,} characters")
    if not separator or scheme not in (REGISTRY_SCHEME, HUB_SCHEME, *STORAGE_SCHEMES):
        raise RemoteBundleError(f"{text!r} is not a reference to a bundle. Expected {FORMS}")
    host, _, name = rest.partition("/")
    if "@" in host:  # the message must not show the password
        raise RemoteBundleError(
            f"a {scheme}:// reference must not contain a user name or password. Log in with "
            "docker login, or with the tools of the storage"
        )

    if scheme == HUB_SCHEME:
        return _parse_hub_reference(text, host, name)
    return _parse_stored_reference(text, scheme, host, name)


def _parse_stored_reference(text: str, scheme: str, host: str, name: str) -> Reference:
    name, has_digest, digest = name.partition("@")
    if has_digest and not _DIGEST.fullmatch(digest):
        raise RemoteBundleError(
            f"{text!r}: a digest is sha256: and 64 hexadecimal digits in lower case, got {digest!r}"
        )
    path, has_tag, tag = name.partition(":")
    if has_tag and not _TAG.fullmatch(tag):
        raise RemoteBundleError(
            f"{text!r}: a tag has 1 to 128 letters, digits, and the signs . _ -, got {tag!r}"
        )
    if has_tag and has_digest:
        raise RemoteBundleError(f"{text!r}: give a tag or a digest, not both")

    parts_are_valid = all(_is_valid_part(scheme, part) for part in path.split("/"))
    if not _is_valid_host(scheme, host) or not parts_are_valid:
        has_capitals = scheme == REGISTRY_SCHEME and path != path.lower()
        hint = ". Names of repositories are in lower case" if has_capitals else ""
        raise RemoteBundleError(f"{text!r} is not a reference to a bundle. Expected {FORMS}{hint}")
    return Reference(scheme, host, path, tag if has_tag else None, digest if has_digest else None)


def _is_valid_part(scheme: str, part: str) -> bool:
    if scheme == REGISTRY_SCHEME:
        return bool(_REPOSITORY_PART.fullmatch(part))
    if scheme == FOLDER_SCHEME:
        return part not in ("", ".", "..") and part.isprintable()
    return bool(_OBJECT_PART.fullmatch(part))


def _is_valid_host(scheme: str, host: str) -> bool:
    if scheme == FOLDER_SCHEME:
        return not host
    if scheme != REGISTRY_SCHEME:
        return bool(_BUCKET.fullmatch(host))
    match = _HOST.fullmatch(host)
    return (
        match is not None and len(host) <= _MAX_HOST_CHARACTERS and int(match[1] or 0) <= _MAX_PORT
    )


def _parse_hub_reference(text: str, owner: str, name: str) -> Reference:
    repository, has_revision, revision = name.partition("@")
    names = (owner, repository, revision) if has_revision else (owner, repository)
    if not all(_HUB_PART.fullmatch(each) for each in names):
        raise RemoteBundleError(f"{text!r} is not hf://OWNER/REPOSITORY@REVISION")
    if _COMMIT.fullmatch(revision):
        return Reference(HUB_SCHEME, owner, repository, digest=revision)
    return Reference(HUB_SCHEME, owner, repository, tag=revision if has_revision else "main")
