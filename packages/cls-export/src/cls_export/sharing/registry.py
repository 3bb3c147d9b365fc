"""A repository in a container registry.

Protocol: https://github.com/opencontainers/distribution-spec/blob/main/spec.md
"""

from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from cls_export.contract.errors import BundleError, RemoteBundleError, TransferError
from cls_export.contract.files import open_regular
from cls_export.sharing.http_client import (
    MAX_REASON,
    HttpClient,
    iterate_body,
    read_body,
    read_retry_after,
)
from cls_export.sharing.manifest import MANIFEST_TYPE, MAX_MANIFEST_BYTES, Blob
from cls_export.sharing.references import Reference
from cls_export.sharing.registry_login import RegistryLogin

if TYPE_CHECKING:
    import httpx2

INDEX_TYPES: Final = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
IMAGE_TYPES: Final = (MANIFEST_TYPE, "application/vnd.docker.distribution.manifest.v2+json")

_DOCKER_HUB = "docker.io"
_DOCKER_HUB_API = "registry-1.docker.io"
_MAX_ERROR_BYTES = 64 * 2**10
_FOREIGN_DENIALS = (401, 403)
"""Of a server that the registry redirects to: the signature of the address may have expired."""


class Registry:
    """A repository of a registry, as a `BundleStore`."""

    def __init__(self, reference: Reference) -> None:
        self._reference = reference
        host, path = reference.host, reference.path
        if host == _DOCKER_HUB:
            host = _DOCKER_HUB_API
            path = path if "/" in path else f"library/{path}"
        self._client = HttpClient(host)
        self._url = f"{self._client.server}/v2/{path}"
        self._login = RegistryLogin(self._client, reference)

    def has_blob(self, blob: Blob) -> bool:
        """See `BundleStore`."""
        with self._send("HEAD", f"{self._url}/blobs/{blob.digest}") as response:
            if response.status_code == 404:
                return False
            self._check(response, "cannot be read", 200)
            return True

    def upload_blob(self, blob: Blob, source: Path | bytes) -> None:
        """See `BundleStore`."""
        with self._send("POST", f"{self._url}/blobs/uploads/") as response:
            self._check(response, "does not accept uploads", 202)
            target = self._find_upload_address(response, blob)

        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(blob.size)}
        if isinstance(source, bytes):
            self._finish_upload(target, headers, source)
            return
        with open_regular(source, error=BundleError) as stream:
            self._finish_upload(target, headers, stream)

    def _find_upload_address(self, response: "httpx2.Response", blob: Blob) -> str:
        location = response.headers.get("Location")
        if location is None:
            raise TransferError(f"{self._reference.name} gives no address for the upload")
        address = str(response.url.join(location)).partition("#")[0]
        separator = "&" if "?" in address else "?"
        return f"{address}{separator}digest={blob.digest}"

    def _finish_upload(
        self, target: str, headers: Mapping[str, str], content: bytes | IO[bytes]
    ) -> None:
        with self._send("PUT", target, headers, content) as response:
            self._check(response, "did not store an upload", 201)

    def put_manifest(self, content: bytes, tag: str) -> None:
        """See `BundleStore`."""
        address = f"{self._url}/manifests/{tag}"
        headers = {"Content-Type": MANIFEST_TYPE}
        with self._send("PUT", address, headers, content) as response:
            self._check(response, "did not store the manifest", 201)

    def get_manifest(self, version: str) -> bytes:
        """See `BundleStore`. Manifests and indexes of images are returned, too."""
        address = f"{self._url}/manifests/{version}"
        headers = {"Accept": ", ".join([*IMAGE_TYPES, *INDEX_TYPES])}
        with self._send("GET", address, headers) as response:
            self._check(response, f"does not return {version}", 200, missing=f"has no {version}")
            content = read_body(response, MAX_MANIFEST_BYTES)
        if content is None:
            raise BundleError(
                f"{self._reference}: the answer is larger than {MAX_MANIFEST_BYTES:,} bytes"
            )
        return content

    def read_blob(self, blob: Blob) -> Generator[bytes, None, None]:
        """See `BundleStore`."""
        with self._send("GET", f"{self._url}/blobs/{blob.digest}") as response:
            problem = f"does not return the blob {blob.digest}"
            self._check(response, problem, 200, missing=f"lacks the blob {blob.digest}")
            yield from iterate_body(response)

    def close(self) -> None:
        """See `BundleStore`."""
        self._client.close()

    @contextmanager
    def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        content: bytes | IO[bytes] | None = None,
    ) -> Iterator["httpx2.Response"]:
        """Send a request, and log in if the registry asks for it. Errors have one message."""
        with self._client.described():
            response = self._request(method, url, headers or {}, content)
            try:
                is_asked = response.status_code == 401 and self._client.is_own(response.url)
                if is_asked and self._login.answer(response):
                    response.close()
                    response = self._request(method, url, headers or {}, content)
                yield response
            finally:
                response.close()

    def _request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        content: bytes | IO[bytes] | None,
    ) -> "httpx2.Response":
        if content is not None and not isinstance(content, bytes):
            content.seek(0)
        request = self._client.build(method, url, headers=headers, content=content)
        if self._client.is_own(request.url) and self._login.header is not None:
            request.headers["Authorization"] = self._login.header
        return self._client.send(request)

    def _check(
        self, response: "httpx2.Response", problem: str, expected: int, missing: str = ""
    ) -> None:
        """Raise the error for an answer with another status; `missing` says what 404 means."""
        status = response.status_code
        if status == expected:
            return
        reason = _describe_answer(response)
        is_own = self._client.is_own(response.url)
        if not is_own:
            reason = f"{response.url.host}: {reason}"
        if is_own and status in (401, 403):
            self._login.refuse(reason)
        if status == 404:
            raise RemoteBundleError(
                f"{self._reference.name} {missing or problem} ({reason}). Check the repository and "
                "the version"
            )
        wait_seconds = read_retry_after(response)
        advice = "" if wait_seconds is None else f". Try again in {wait_seconds:.0f} seconds"
        is_temporary = status == 429 or status >= 500
        raise TransferError(
            f"{self._reference.name} {problem} ({reason}){advice}",
            is_temporary=is_temporary or (not is_own and status in _FOREIGN_DENIALS),
            wait_seconds=wait_seconds,
        )


def _describe_answer(response: "httpx2.Response") -> str:
    """Return the status, and the message of the registry if there is one."""
    status = f"HTTP {response.status_code}"
    text = _find_message(read_body(response, _MAX_ERROR_BYTES) or b"")
    return f"{status}: {text[:MAX_REASON]}" if text else status


def _find_message(content: bytes) -> str:
    from pydantic_core import from_json

    try:
        first = from_json(content)["errors"][0]
        return str(first.get("message") or first.get("code") or "")
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        return ""
