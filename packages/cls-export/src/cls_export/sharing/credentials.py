"""Credentials of container registries, where docker login and podman login keep them."""

import base64
import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cls_export.contract.errors import RemoteBundleError
from cls_export.contract.files import read_bytes

_DOCKER_HUB = "docker.io"
_DOCKER_HUB_KEY = "https://index.docker.io/v1/"
_TOKEN_USER = "<token>"
"""The user name that docker stores with an identity token."""
_HELPER_NAME = re.compile(r"[A-Za-z0-9._-]+")
_HELPER_SECONDS = 60
_MAX_CONFIG_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user name and password, or an identity token; their repr shows neither secret."""

    username: str = field(repr=False)
    password: str = field(repr=False)

    @property
    def is_identity_token(self) -> bool:
        """Whether the password is a token to be exchanged for an access token."""
        return self.username == _TOKEN_USER

    @property
    def basic(self) -> str:
        """The value of an Authorization header."""
        text = f"{self.username}:{self.password}".encode()
        return f"Basic {base64.b64encode(text).decode()}"


def find_credentials(registry: str) -> Credentials | None:
    """Return the credentials of a registry; None to access it anonymously.

    The first of these that knows the registry counts: the JSON in the variable DOCKER_AUTH_CONFIG,
    the file in REGISTRY_AUTH_FILE, and config.json in the folder DOCKER_CONFIG or ~/.docker. Their
    credential helpers are run.

    Raises:
        RemoteBundleError: One of these is damaged, or the helper of the registry is missing.
    """
    for source, config in _read_configs():
        found = _find_in_config(config, registry, source)
        if found is not None:
            return found
    return None


def _read_configs() -> Iterator[tuple[str, dict[str, Any]]]:
    variable = os.environ.get("DOCKER_AUTH_CONFIG")
    if variable:
        yield "DOCKER_AUTH_CONFIG", _parse(variable, "DOCKER_AUTH_CONFIG")

    files = []
    if os.environ.get("REGISTRY_AUTH_FILE"):
        files.append(Path(os.environ["REGISTRY_AUTH_FILE"]))
    folder = os.environ.get("DOCKER_CONFIG")
    files.append(Path(folder) / "config.json" if folder else _home() / ".docker/config.json")
    for file in files:
        if file.exists():
            text = read_bytes(file, error=RemoteBundleError, max_bytes=_MAX_CONFIG_BYTES)
            yield str(file), _parse(text, str(file))


def _home() -> Path:
    return Path(os.path.expanduser("~"))  # noqa: PTH111  (Path.home() fails without a home)


def _parse(text: str | bytes, source: str) -> dict[str, Any]:
    try:
        config = json.loads(text)
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):  # the content is secret, so the message has none of it
        raise RemoteBundleError(f"{source} is not the JSON object that docker login writes")
    return config


def _find_in_config(config: Mapping[str, Any], registry: str, source: str) -> Credentials | None:
    keys = [registry, f"https://{registry}"]
    if registry == _DOCKER_HUB:
        keys = [_DOCKER_HUB_KEY]

    helpers = config.get("credHelpers")
    if isinstance(helpers, dict) and isinstance(helpers.get(keys[0]), str):
        return _ask_helper(helpers[keys[0]], keys[0], source, is_required=True)

    entries = config.get("auths")
    for key in keys:
        entry = entries.get(key) if isinstance(entries, dict) else None
        if isinstance(entry, dict) and entry:
            return _read_entry(entry, key, source)

    store = config.get("credsStore")
    if isinstance(store, str) and store:
        return _ask_helper(store, keys[0], source, is_required=False)
    return None


def _read_entry(entry: Mapping[str, Any], key: str, source: str) -> Credentials | None:
    try:
        if entry.get("identitytoken"):
            return Credentials(_TOKEN_USER, str(entry["identitytoken"]))
        if entry.get("auth"):
            text = base64.b64decode(entry["auth"], validate=True).decode()
            username, _, password = text.partition(":")
            return Credentials(username, password.rstrip("\0"))
        return Credentials(entry["username"], entry["password"])
    except (ValueError, TypeError, KeyError):
        problem = f"{source}: the entry of {key} has no valid user name and password"
    raise RemoteBundleError(f"{problem}. Run docker login {key} again")


def _ask_helper(
    helper: str, registry: str, source: str, *, is_required: bool
) -> Credentials | None:
    if not _HELPER_NAME.fullmatch(helper):
        raise RemoteBundleError(f"{source}: {helper!r} is not the name of a credential helper")
    program = f"docker-credential-{helper}"
    try:
        result = subprocess.run(
            [program, "get"],
            input=registry.encode(),
            capture_output=True,
            timeout=_HELPER_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        if not is_required:  # a leftover of docker's desktop program must not prevent public pulls
            return None
        raise RemoteBundleError(
            f"{program} cannot be run, which {source} names for {registry}. Install it, or remove "
            "the entry"
        ) from error
    if result.returncode != 0:
        return None
    try:
        answer = json.loads(result.stdout)
        return Credentials(str(answer["Username"]), str(answer["Secret"]))
    except (ValueError, TypeError, KeyError):
        return None
