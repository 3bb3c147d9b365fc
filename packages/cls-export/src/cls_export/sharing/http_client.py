"""HTTP requests to a registry and the servers that it names, none of which is trusted."""

import ipaddress
import re
import ssl
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Final

from cls_export.contract.errors import MissingExtraError, RemoteBundleError, TransferError
from cls_export.contract.text import short_name

try:
    import httpx2
except ImportError as error:
    raise MissingExtraError(
        f'{error.name} is not installed. For oci:// references: pip install "cls-export[registry]"'
    ) from error

MAX_REASON: Final = 300
"""Characters of a server's message that are shown."""

_TIMEOUT: Final = httpx2.Timeout(60, connect=10)
_MAX_REDIRECTS = 5
_MIN_BYTES_PER_SECOND = 10_000
_GRACE_SECONDS = 60.0  # in which a transfer may be slower
_PERMANENT = (httpx2.ConnectError, httpx2.ProxyError, httpx2.UnsupportedProtocol)
_PROXIES = "HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY"


class HttpClient:
    """Requests to a registry: without TLS on the loopback interface, otherwise with it.

    Attributes:
        server: Scheme and host of the registry, such as `https://registry.example.com`.
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._is_local = is_loopback(host)
        self.server = f"{'http' if self._is_local else 'https'}://{host}"
        with self.described():  # also of an invalid port
            self._url = httpx2.URL(f"{self.server}/")
            self._client = self._build_client()

    def _build_client(self) -> httpx2.Client:
        mounts = {f"all://{self._host}": None}  # a proxy cannot reach this machine
        try:
            return httpx2.Client(
                timeout=_TIMEOUT,
                mounts=mounts if self._is_local else None,
                # Compressed answers would be unpacked before their size is known.
                headers={"Accept-Encoding": "identity", "User-Agent": "cls-export"},
            )
        except (ValueError, ImportError, OSError, httpx2.InvalidURL) as error:
            # Without the reason, which may contain the password of a proxy.
            kind = type(error).__name__
            hint = " (for SOCKS: pip install socksio)" if isinstance(error, ImportError) else ""
        raise RemoteBundleError(
            f"the network settings of the environment cannot be used ({kind}){hint}. Check the "
            f"variables {_PROXIES}, SSL_CERT_FILE, and SSL_CERT_DIR"
        )

    def build(
        self,
        method: str,
        url: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        content: bytes | IO[bytes] | None = None,
        form: Mapping[str, str] | None = None,
    ) -> httpx2.Request:
        """Return a request. The query is added to that of the URL."""
        address = httpx2.URL(url)
        if query:
            address = address.copy_merge_params(dict(query))
        return self._client.build_request(
            method, address, headers=dict(headers or {}), content=content, data=form
        )

    def is_own(self, url: httpx2.URL) -> bool:
        """Whether a URL belongs to the registry itself."""
        return url.copy_with(path="/", query=None, fragment=None) == self._url

    def send(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request and return the answer, whose body the caller reads and closes.

        Only reading requests follow redirects; credentials do not follow to another server.
        """
        for _ in range(_MAX_REDIRECTS + 1):
            self._refuse_plain_http(request.url)
            response = self._client.send(request, stream=True)
            if response.next_request is None or request.method not in ("GET", "HEAD"):
                return response
            response.close()
            request = response.next_request
        raise TransferError(f"{self._host} redirects more than {_MAX_REDIRECTS} times")

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _refuse_plain_http(self, url: httpx2.URL) -> None:
        is_local = self._is_local and url.scheme == "http" and is_loopback(url.host)
        if url.scheme == "https" or is_local:
            return
        address = short_name(f"{url.scheme}://{url.host}")
        raise RemoteBundleError(
            f"{self._host} sends requests on to {address}, which is not https://, so anybody on "
            "the way could change the answer. Nothing was transferred"
        )

    @contextmanager
    def described(self) -> Iterator[None]:
        """Convert errors to a TransferError, or to a RemoteBundleError for a wrong address."""
        try:
            yield
        except (httpx2.InvalidURL, UnicodeError) as error:  # the latter for names of hosts
            reason = str(error)[:MAX_REASON]
            raise RemoteBundleError(f"{self._host}: {reason}. Check the address") from error
        except httpx2.RequestError as error:
            reason = (str(error) or type(error).__name__)[:MAX_REASON]  # its URL may be signed
            raise TransferError(
                f"{self._host}: {reason}. {_advise(error)}",
                is_temporary=not isinstance(error, _PERMANENT),
            ) from error


def _advise(error: BaseException) -> str:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return "If your organization has its own certificates, set SSL_CERT_FILE to their file"
    if isinstance(cause, ssl.SSLError):
        return (
            "Registries are contacted with TLS. One without it is accepted on localhost only, such "
            "as the end of a tunnel: ssh -L 5000:HOST:PORT …"
        )
    if urllib.request.getproxies().keys() - {"no"}:
        return f"Check the address, the network, and the variables {_PROXIES}"
    return "Check the address and the network"


def read_body(response: httpx2.Response, max_bytes: int) -> bytes | None:
    """Return the body of an answer, or None if it is larger."""
    content = b""
    for chunk in iterate_body(response):
        content += chunk
        if len(content) > max_bytes:
            return None
    return content


def iterate_body(
    response: httpx2.Response, now: Callable[[], float] = time.monotonic
) -> Iterator[bytes]:
    """Yield the body of an answer in chunks, or raise a TransferError if it comes too slowly."""
    started = now()
    received = 0
    for chunk in response.iter_raw():
        received += len(chunk)
        seconds = now() - started - _GRACE_SECONDS
        if received < seconds * _MIN_BYTES_PER_SECOND:
            raise TransferError(
                f"{response.url.host} sent {received:,} bytes in {now() - started:.0f} seconds, "
                "which is too slow. Check the network"
            )
        yield chunk


def read_retry_after(response: httpx2.Response) -> float | None:
    """Return the seconds that an answer asks to wait, or None. Dates are ignored."""
    text = response.headers.get("Retry-After", "")
    return float(text) if re.fullmatch(r"[0-9]{1,9}", text) else None


def is_loopback(host: str) -> bool:
    """Whether a host, with or without a port, is this machine."""
    has_port = host.count(":") == 1 or "]:" in host
    name = host.rpartition(":")[0] if has_port else host
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False
