"""A repository in a container registry.

Protocol: https://github.com/opencontainers/distribution-spec/blob/main/spec.md
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, NoReturn

from cls_export.contract.errors import (
    BundleError,
    MissingExtraError,
    RemoteBundleError,
    TransferError,
)
from cls_export.contract.files import open_regular
from cls_export.sharing.manifest import MANIFEST_TYPE, MAX_MANIFEST_BYTES, Blob
from cls_export.sharing.references import Reference
from cls_export.sharing.registry_login import RegistryLogin, is_loopback

try:
    import httpx2
except ImportError as error:
    raise MissingExtraError(
        f'{error.name} is not installed. For oci:// references: pip install "cls-export[registry]"'
    ) from error

_API_HOSTS = {"docker.io": "registry-1.docker.io"}
_TIMEOUT: Final = httpx2.Timeout(60, connect=10)
_MAX_REDIRECTS = 5
_MAX_REASON = 300
_MAX_ERROR_BYTES = 64 * 2**10
_MAX_CHUNK = 2**20


class Registry:
    """A repository of a registry, as a `BundleStore`.

    Registries on the loopback interface are contacted without TLS, all others with it.
    """

    def __init__(self, reference: Reference) -> None:
        host = _API_HOSTS.get(reference.host, reference.host)
        is_local = is_loopback(host)
        self._reference = reference
        self._server = f"{'http' if is_local else 'https'}://{host}"
        self._url = f"{self._server}/v2/{reference.path}"
        self._client = httpx2.Client(
            timeout=_TIMEOUT,
            trust_env=not is_local,  # a proxy cannot reach this machine
            max_redirects=_MAX_REDIRECTS,
            event_hooks={"request": [self._refuse_plain_http]},
            # Compressed answers would be unpacked before their size is known.
            headers={"Accept-Encoding": "identity", "User-Agent": "cls-export"},
        )
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
            address = httpx2.URL(self._url).join(response.headers.get("Location", ""))

        separator = "&" if address.query else "?"
        target = f"{address}{separator}digest={blob.digest}"
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(blob.size)}
        if isinstance(source, bytes):
            self._finish_upload(target, headers, source)
            return
        with open_regular(source, error=BundleError) as stream:
            self._finish_upload(target, headers, stream)

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
        """See `BundleStore`."""
        address = f"{self._url}/manifests/{version}"
        with self._send("GET", address, {"Accept": MANIFEST_TYPE}) as response:
            self._check(response, f"has no bundle {version}", 200)
            return _read(response, MAX_MANIFEST_BYTES, str(self._reference))

    def read_blob(self, blob: Blob) -> Iterator[bytes]:
        """See `BundleStore`."""
        with self._send("GET", f"{self._url}/blobs/{blob.digest}") as response:
            self._check(response, f"lacks the blob {blob.digest}", 200)
            yield from response.iter_raw(_MAX_CHUNK)

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
    ) -> Iterator[httpx2.Response]:
        """Send a request, and log in if the registry asks for it. Errors have one message."""
        with self._described():
            response = self._request(method, url, headers or {}, content)
            try:
                can_repeat = content is None or isinstance(content, bytes)
                if response.status_code == 401 and self._login.answer(response) and can_repeat:
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
    ) -> httpx2.Response:
        request = self._client.build_request(method, url, headers=dict(headers), content=content)
        is_own_server = request.url.copy_with(path="/", query=None) == httpx2.URL(
            f"{self._server}/"
        )
        if is_own_server and self._login.header is not None:
            request.headers["Authorization"] = self._login.header
        is_reading = method in ("GET", "HEAD")
        return self._client.send(request, stream=True, follow_redirects=is_reading)

    def _refuse_plain_http(self, request: httpx2.Request) -> None:
        if request.url.scheme != "https" and not self._server.startswith("http://"):
            raise RemoteBundleError(
                f"{self._reference.host} sends requests on to {request.url.host} without TLS, so "
                "anybody on the way could change the answer. Nothing was transferred"
            )

    def _check(self, response: httpx2.Response, problem: str, *expected: int) -> None:
        if response.status_code in expected:
            return
        reason = _describe_answer(response)
        if response.status_code in (401, 403):
            self._login.refuse(reason)
        if response.status_code == 404:
            raise RemoteBundleError(
                f"{self._reference.name} {problem} ({reason}). Check the repository and the version"
            )
        raise TransferError(
            f"{self._reference.name} {problem} ({reason})",
            is_temporary=response.status_code == 429 or response.status_code >= 500,
        )

    @contextmanager
    def _described(self) -> Iterator[None]:
        try:
            yield
        except (httpx2.RequestError, httpx2.InvalidURL) as error:
            _raise_network_error(self._reference.host, error)


def _raise_network_error(host: str, error: Exception) -> NoReturn:
    # Without the URL, whose query may have a signature.
    reason = str(error) or type(error).__name__
    is_permanent = isinstance(
        error,
        (
            httpx2.ConnectError,
            httpx2.InvalidURL,
            httpx2.UnsupportedProtocol,
            httpx2.TooManyRedirects,
        ),
    )
    raise TransferError(
        f"{host}: {reason[:_MAX_REASON]}. Check the address and the network",
        is_temporary=not is_permanent,
    ) from error


def _read(response: httpx2.Response, max_bytes: int, source: str) -> bytes:
    content = b""
    for chunk in response.iter_raw(_MAX_CHUNK):
        content += chunk
        if len(content) > max_bytes:
            raise BundleError(f"{source}: the answer is larger than {max_bytes:,} bytes")
    return content


def _describe_answer(response: httpx2.Response) -> str:
    """Return the status, and the message of the registry if there is one."""
    status = f"HTTP {response.status_code}"
    content = b""
    for chunk in response.iter_raw(_MAX_ERROR_BYTES):
        content += chunk
        if len(content) > _MAX_ERROR_BYTES:
            return status
    text = _find_message(content)
    return f"{status}: {text[:_MAX_REASON]}" if text else status


def _find_message(content: bytes) -> str:
    from pydantic_core import from_json

    try:
        first = from_json(content)["errors"][0]
        return str(first.get("message") or first.get("code") or "")
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        return ""
