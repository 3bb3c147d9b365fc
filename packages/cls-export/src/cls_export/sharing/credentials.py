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

_DOCKER_HUB_HOSTS = ("index.docker.io", "docker.io", "registry-1.docker.io")
_DOCKER_HUB_KEY = "https://index.docker.io/v1/"
_SECRET_KEYS = ("auth", "identitytoken", "username", "password")
_TOKEN_USER = "<token>"
"""The user name that docker stores with an identity token."""
_HELPER_NAME = re.compile(r"[A-Za-z0-9._-]+")
_HELPER_SECONDS = 60
_MAX_CONFIG_BYTES = 2**20
_PODMAN_FILE = "containers/auth.json"


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


def find_credentials(registry: str, repository: str = "") -> Credentials | None:
    """Return the credentials of a registry; None to access it anonymously.

    The first of these that knows the registry counts: the JSON in the variable DOCKER_AUTH_CONFIG,
    the file in REGISTRY_AUTH_FILE, config.json in the folder DOCKER_CONFIG or ~/.docker, and
    auth.json of podman. Their credential helpers are run. An entry for a part of the registry, such
    as `registry.example.com/models`, is preferred.

    Raises:
        RemoteBundleError: One of these is damaged, or the helper of the registry is missing.
    """
    for source, config in _read_configs():
        found = _find_in_config(config, registry, repository, source)
        if found is not None:
            return found
    return None


def _read_configs() -> Iterator[tuple[str, dict[str, Any]]]:
    variable = os.environ.get("DOCKER_AUTH_CONFIG")
    if variable:
        yield "DOCKER_AUTH_CONFIG", _parse(variable, "DOCKER_AUTH_CONFIG")

    for file in _list_config_files():
        if os.path.exists(file):  # noqa: PTH110  (false also where it cannot be looked up)
            text = read_bytes(file, error=RemoteBundleError, max_bytes=_MAX_CONFIG_BYTES)
            yield str(file), _parse(text, str(file))


def _list_config_files() -> list[Path]:
    files = []
    if os.environ.get("REGISTRY_AUTH_FILE"):
        files.append(Path(os.environ["REGISTRY_AUTH_FILE"]))
    docker = os.environ.get("DOCKER_CONFIG") or _home() / ".docker"
    files.append(Path(docker) / "config.json")
    if os.environ.get("XDG_RUNTIME_DIR"):
        files.append(Path(os.environ["XDG_RUNTIME_DIR"]) / _PODMAN_FILE)
    config = os.environ.get("XDG_CONFIG_HOME") or _home() / ".config"
    return [*files, Path(config) / _PODMAN_FILE]


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


def _find_in_config(
    config: Mapping[str, Any], registry: str, repository: str, source: str
) -> Credentials | None:
    keys = _list_keys(registry, repository)
    server = _DOCKER_HUB_KEY if registry in _DOCKER_HUB_HOSTS else registry

    helpers = config.get("credHelpers")
    for key in dict.fromkeys([registry, server]):
        if isinstance(helpers, dict) and isinstance(helpers.get(key), str):
            return _ask_helper(helpers[key], server, source, is_required=True)

    entries = config.get("auths")
    for key in keys:
        entry = entries.get(key) if isinstance(entries, dict) else None
        if isinstance(entry, dict) and not entry.keys().isdisjoint(_SECRET_KEYS):
            return _read_entry(entry, key, source)

    store = config.get("credsStore")
    if isinstance(store, str) and store:
        return _ask_helper(store, server, source, is_required=False)
    return None


def _list_keys(registry: str, repository: str) -> list[str]:
    """Return the keys of `auths` under which docker and podman store a registry, best first."""
    keys = []
    for host in _DOCKER_HUB_HOSTS if registry in _DOCKER_HUB_HOSTS else (registry,):
        path = f"{host}/{repository}"
        while path != host:
            keys.append(path)
            path = path.rpartition("/")[0]
        keys.append(host)
        keys += [f"https://{host}{end}" for end in ("", "/", "/v1/", "/v2/")]
    return keys


def _read_entry(entry: Mapping[str, Any], key: str, source: str) -> Credentials:
    try:
        if entry.get("identitytoken"):
            return Credentials(_TOKEN_USER, str(entry["identitytoken"]))
        if entry.get("auth"):
            text = base64.b64decode(entry["auth"], validate=True).decode()
            username, password = text.split(":", maxsplit=1)
            return Credentials(username, password.rstrip("\0"))
        return Credentials(str(entry["username"]), str(entry["password"]))
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
            f"{program} cannot be run, which {source} names for {registry}. Install it"
        ) from error
    if result.returncode != 0:
        return None
    try:
        answer = json.loads(result.stdout)
        return Credentials(str(answer["Username"]), str(answer["Secret"]))
    except (ValueError, TypeError, KeyError):
        return None
