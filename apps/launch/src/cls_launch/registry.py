"""Read manifests from a container registry over its HTTP API.

The protocol is https://github.com/opencontainers/distribution-spec. Credentials are those of
`docker login`.
"""

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from cls_launch.errors import LaunchError, LaunchFailedError

_INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_HUB_HOSTS = {"docker.io": "registry-1.docker.io"}
_HUB_LOGIN = "https://index.docker.io/v1/"
_LOOPBACK = ("localhost", "127.0.0.1")
_MAX_BYTES = 4 * 2**20
_SECONDS = 15.0
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


class _NoAuthorizationOnRedirect(urllib.request.HTTPRedirectHandler):
    """Follow redirects to storage without the registry's token."""

    def redirect_request(self, *arguments: Any) -> urllib.request.Request | None:
        request = super().redirect_request(*arguments)
        if request is not None:
            request.remove_header("Authorization")
        return request


class Registry:
    """One repository of a registry.

    Args:
        host: Host, with its port if there is one. Loopback hosts are asked over plain HTTP.
        repository: Path in the registry.
    """

    def __init__(self, host: str, repository: str) -> None:
        self._host = host
        self._is_loopback = host.partition(":")[0] in _LOOPBACK
        is_short = host in _HUB_HOSTS and "/" not in repository
        path = f"library/{repository}" if is_short else repository
        scheme = "http" if self._is_loopback else "https"
        self._url = f"{scheme}://{_HUB_HOSTS.get(host, host)}/v2/{path}"
        self._name = f"{host}/{repository}"
        self._authorization: str | None = None
        self._opener = urllib.request.build_opener(_NoAuthorizationOnRedirect())

    def resolve(self, tag: str) -> str:
        """Return the digest of a tag.

        Raises:
            LaunchError: There is no such image, or access is denied.
            LaunchFailedError: The registry cannot be reached, or answers nonsense.
        """
        return _hash(self._get_manifest(tag))

    def read_labels(self, digest: str) -> dict[str, str]:
        """Return the labels of an image; of the first platform if there are several.

        Raises:
            LaunchError, LaunchFailedError: Like `resolve`.
        """
        manifest = self._read_json(self._get_verified(f"manifests/{digest}", digest))
        if manifest.get("mediaType") in _INDEXES or "manifests" in manifest:
            first = _choose_platform(manifest)
            manifest = self._read_json(self._get_verified(f"manifests/{first}", first))
        try:
            config = str(manifest["config"]["digest"])
        except (KeyError, TypeError) as error:
            raise LaunchFailedError(f"image: {self._name}@{digest} has no configuration") from error
        content = self._read_json(self._get_verified(f"blobs/{config}", config))
        labels = (content.get("config") or {}).get("Labels") or {}
        return {str(key): str(value) for key, value in labels.items()}

    def _get_manifest(self, reference: str) -> bytes:
        return self._get(f"manifests/{urllib.parse.quote(reference)}")

    def _get_verified(self, path: str, digest: str) -> bytes:
        content = self._get(path)
        if _hash(content) != digest:
            raise LaunchFailedError(
                f"image: {self._host} sent other content than {digest} of {self._name}; try again"
            )
        return content

    def _read_json(self, content: bytes) -> dict[str, Any]:
        try:
            value = json.loads(content)
        except ValueError as error:
            raise LaunchFailedError(f"image: {self._name}: the manifest is not JSON") from error
        if not isinstance(value, dict):
            raise LaunchFailedError(f"image: {self._name}: the manifest is not a mapping")
        return value

    def _get(self, path: str) -> bytes:
        try:
            return self._open(f"{self._url}/{path}", self._authorization)
        except urllib.error.HTTPError as error:
            if error.code != 401 or self._authorization is not None:
                raise self._explain(error) from error
            challenge = error.headers.get("WWW-Authenticate", "")
        self._authorization = self._authorize(challenge)
        try:
            return self._open(f"{self._url}/{path}", self._authorization)
        except urllib.error.HTTPError as error:
            raise self._explain(error) from error

    def _open(self, url: str, authorization: str | None) -> bytes:
        request = urllib.request.Request(url)
        request.add_header("Accept", ", ".join([*_INDEXES, *_MANIFESTS, "application/json"]))
        if authorization is not None:
            request.add_header("Authorization", authorization)
        try:
            with self._opener.open(request, timeout=_SECONDS) as answer:
                content: bytes = answer.read(_MAX_BYTES + 1)
        except urllib.error.HTTPError as error:
            error.close()  # its headers stay readable
            raise
        except (OSError, ValueError) as error:  # URLError is an OSError
            reason = getattr(error, "reason", error)
            raise LaunchFailedError(
                f"image: {self._host} cannot be reached ({reason}); check the network, or give the "
                "digest: image=REGISTRY/REPOSITORY@sha256:…"
            ) from error
        if len(content) > _MAX_BYTES:
            raise LaunchFailedError(f"image: {self._name}: the answer is larger than 4 MB")
        return content

    def _authorize(self, challenge: str) -> str:
        """Return the header for the request that a registry has refused without it."""
        login = _read_login(_HUB_LOGIN if self._host in _HUB_HOSTS else self._host)
        kind = challenge.partition(" ")[0].lower()
        if kind == "basic":
            if login is None:
                raise self._denied()
            return f"Basic {login}"
        values = dict(_CHALLENGE.findall(challenge))
        schemes = ("https://", "http://") if self._is_loopback else ("https://",)
        if kind != "bearer" or not values.get("realm", "").startswith(schemes):
            raise LaunchFailedError(f"image: {self._host} asks for an unknown login: {challenge!r}")
        query = {key: values[key] for key in ("service", "scope") if key in values}
        url = f"{values['realm']}?{urllib.parse.urlencode(query)}"
        try:
            content = self._open(url, f"Basic {login}" if login else None)
        except urllib.error.HTTPError as error:
            raise self._explain(error) from error
        answer = self._read_json(content)
        token = answer.get("token") or answer.get("access_token")
        return f"Bearer {token}"

    def _denied(self) -> LaunchError:
        return LaunchError(
            f"image: {self._host} denies access to {self._name}; run: docker login {self._host}"
        )

    def _explain(self, error: urllib.error.HTTPError) -> LaunchError | LaunchFailedError:
        if error.code in (401, 403):
            return self._denied()
        if error.code == 404:
            return LaunchError(
                f"image: {self._name} does not exist in the registry with this tag or digest; push "
                "it first, see docs/images.md"
            )
        return LaunchFailedError(f"image: {self._host} answers {error.code} {error.reason}")


def _hash(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _choose_platform(index: dict[str, Any]) -> str:
    """Return the digest of the first image for Linux on x86-64, or of the first one."""
    entries = [entry for entry in index.get("manifests", []) if isinstance(entry, dict)]
    for entry in entries:
        platform = entry.get("platform") or {}
        if (platform.get("os"), platform.get("architecture")) == ("linux", "amd64"):
            return str(entry.get("digest"))
    if not entries:
        raise LaunchFailedError("image: the index lists no image")
    return str(entries[0].get("digest"))


def _read_login(host: str) -> str | None:
    """Return the Base64 of `user:password` that `docker login` has stored; None without one."""
    folder = os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker"
    try:
        settings = json.loads((Path(folder) / "config.json").read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(settings, dict):
        return None
    helper = (settings.get("credHelpers") or {}).get(host) or settings.get("credsStore")
    if isinstance(helper, str):
        return _ask_helper(f"docker-credential-{helper}", host)
    entry = (settings.get("auths") or {}).get(host) or {}
    login = entry.get("auth")
    return login if isinstance(login, str) and login else None


def _ask_helper(command: str, host: str) -> str | None:
    if shutil.which(command) is None:
        return None
    try:
        process = subprocess.run(
            [command, "get"], input=host, capture_output=True, text=True, timeout=30, check=True
        )
        answer = json.loads(process.stdout)
        login = f"{answer['Username']}:{answer['Secret']}"
    except (subprocess.SubprocessError, OSError, ValueError, KeyError, TypeError):
        return None
    return base64.b64encode(login.encode()).decode()
