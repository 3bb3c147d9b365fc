"""Answer a registry's request for authentication.

Protocol: https://distribution.github.io/distribution/spec/auth/token/
"""

import ipaddress
import re
from typing import NoReturn

from cls_export.contract.errors import MissingExtraError, RemoteBundleError
from cls_export.sharing.credentials import Credentials, find_credentials
from cls_export.sharing.references import Reference

try:
    import httpx2
except ImportError as error:
    raise MissingExtraError(
        f'{error.name} is not installed. For oci:// references: pip install "cls-export[registry]"'
    ) from error

_PARAMETER = re.compile(r'([A-Za-z]+)="([^"]*)"')
_MAX_TOKEN_BYTES = 2**20


class RegistryLogin:
    """The Authorization header of one registry.

    Attributes:
        header: The value that the last challenge led to; None as long as none is needed.
    """

    def __init__(self, client: httpx2.Client, reference: Reference) -> None:
        self._client = client
        self._host = reference.host
        self._repository = reference.path
        self._credentials: Credentials | None = None
        self._has_looked = False
        self.header: str | None = None

    def answer(self, response: httpx2.Response) -> bool:
        """Set `header` as a response with status 401 asks for; return whether to try again.

        Raises:
            RemoteBundleError: The stored credentials cannot be used.
        """
        challenge = response.headers.get("WWW-Authenticate", "")
        scheme, _, text = challenge.partition(" ")
        parameters = dict(_PARAMETER.findall(text))
        previous = self.header
        if scheme.lower() == "basic":
            credentials = self._find_credentials()
            self.header = credentials.basic if credentials is not None else None
        elif scheme.lower() == "bearer" and parameters.get("realm"):
            self.header = self._request_token(parameters)
        return self.header not in (None, previous)

    def refuse(self, reason: str) -> NoReturn:
        """Raise the error for a request that the registry denies."""
        advice = f"Log in: docker login {self._host}"
        if self._credentials is not None:
            advice = (
                f"The stored credentials may be wrong, or lack the permission; log in again: "
                f"docker login {self._host}"
            )
        raise RemoteBundleError(
            f"{self._host} denies access to {self._repository} ({reason}). {advice}"
        )

    def _find_credentials(self) -> Credentials | None:
        if not self._has_looked:
            self._credentials = find_credentials(self._host)
            self._has_looked = True
        return self._credentials

    def _request_token(self, parameters: dict[str, str]) -> str | None:
        """Ask the token server of the registry; None if it denies a token."""
        realm = parameters.pop("realm")
        query: dict[str, str] = {}
        for name in ("service", "scope"):
            if name in parameters:
                query[name] = parameters[name]
        credentials = self._find_credentials()

        if credentials is not None and credentials.is_identity_token:
            form = {
                **query,
                "grant_type": "refresh_token",
                "client_id": "cls-export",
                "refresh_token": credentials.password,
            }
            request = self._client.build_request("POST", realm, data=form)
        else:
            request = self._client.build_request("GET", realm, params=[*query.items()])
            if credentials is not None:
                request.headers["Authorization"] = credentials.basic
        response = self._client.send(request, stream=True)
        try:
            token = _read_token(response) if response.status_code == 200 else None
        finally:
            response.close()
        return f"Bearer {token}" if token else None


def _read_token(response: httpx2.Response) -> str | None:
    from pydantic_core import from_json

    content = b""
    for chunk in response.iter_raw(2**16):
        content += chunk
        if len(content) > _MAX_TOKEN_BYTES:
            return None
    try:
        answer = from_json(content)
        token = answer.get("token") or answer.get("access_token")
    except (ValueError, AttributeError):
        return None
    is_usable = isinstance(token, str) and token.isascii() and token.isprintable()
    return token if is_usable else None


def is_loopback(host: str) -> bool:
    """Whether a host, with or without a port, is this machine."""
    name = host.rpartition(":")[0] if re.search(r":[0-9]+$", host) and host[-1] != "]" else host
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False
