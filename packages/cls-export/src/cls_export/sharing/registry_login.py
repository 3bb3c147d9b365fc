"""Answer a registry's request for authentication.

Protocol: https://distribution.github.io/distribution/spec/auth/token/
"""

import re
from typing import TYPE_CHECKING, NoReturn

from cls_export.contract.errors import RemoteBundleError, TransferError
from cls_export.sharing.credentials import Credentials, find_credentials
from cls_export.sharing.http_client import HttpClient, read_body, read_retry_after
from cls_export.sharing.references import Reference

if TYPE_CHECKING:
    import httpx2

_PARAMETER = re.compile(r'([A-Za-z]+)="([^"]*)"')
_MAX_TOKEN_BYTES = 2**20
_DENIED = (400, 401, 403, 404)
"""Of a token server: it gives no token to this user, or for this repository."""


class RegistryLogin:
    """The Authorization header of one registry.

    Attributes:
        header: The value that the last challenge led to; None as long as none is needed.
    """

    def __init__(self, client: HttpClient, reference: Reference) -> None:
        self._client = client
        self._host = reference.host
        self._repository = reference.path
        self._credentials: Credentials | None = None
        self._has_looked = False
        self.header: str | None = None

    def answer(self, response: "httpx2.Response") -> bool:
        """Set `header` as a response with status 401 asks for; return whether to try again.

        The response must come from the registry itself: its challenge names the server that gets
        the credentials.

        Raises:
            RemoteBundleError: The stored credentials cannot be used.
            TransferError: The token server failed.
        """
        previous = self.header
        challenge = response.headers.get("WWW-Authenticate", "")
        parameters = _find_bearer_parameters(challenge)
        if parameters.get("realm"):
            self.header = self._request_token(parameters)
        elif "basic" in challenge.lower():
            credentials = self._find_credentials()
            self.header = credentials.basic if credentials is not None else None
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
            self._credentials = find_credentials(self._host, self._repository)
            self._has_looked = True
        return self._credentials

    def _request_token(self, parameters: dict[str, str]) -> str | None:
        """Ask the token server of the registry; None if it denies a token."""
        realm = parameters["realm"]
        query = {name: parameters[name] for name in parameters if name in ("service", "scope")}
        credentials = self._find_credentials()

        if credentials is not None and credentials.is_identity_token:
            form = {
                **query,
                "grant_type": "refresh_token",
                "client_id": "cls-export",
                "refresh_token": credentials.password,
            }
            request = self._client.build("POST", realm, form=form)
        else:
            request = self._client.build("GET", realm, query=query)
            if credentials is not None:
                request.headers["Authorization"] = credentials.basic
        response = self._client.send(request)
        try:
            return self._read_token(response)
        finally:
            response.close()

    def _read_token(self, response: "httpx2.Response") -> str | None:
        from pydantic_core import from_json

        status = response.status_code
        if status in _DENIED:
            return None
        problem = f"{self._host}: its token server {response.url.host}"
        if status != 200:
            raise TransferError(
                f"{problem} gives no token (HTTP {status}). Try again later",
                is_temporary=status == 429 or status >= 500,
                wait_seconds=read_retry_after(response),
            )
        try:
            answer = from_json(read_body(response, _MAX_TOKEN_BYTES) or b"")
            token = answer.get("token") or answer.get("access_token")
        except (ValueError, AttributeError):
            token = None
        if isinstance(token, str) and token.isascii() and token.isprintable():
            return f"Bearer {token}"
        raise TransferError(f"{problem} answers without a token. Check the address")


def _find_bearer_parameters(challenge: str) -> dict[str, str]:
    """Return what a WWW-Authenticate header, perhaps of several schemes, says about tokens."""
    start = challenge.lower().find("bearer ")
    parameters: dict[str, str] = {}
    for name, value in _PARAMETER.findall(challenge[start:]):
        parameters.setdefault(name.lower(), value)
    return parameters if start >= 0 else {}
