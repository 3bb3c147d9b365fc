"""Credentials come from where docker login keeps them, and are never shown."""

import base64
import json
import os
import sys
from pathlib import Path

import pytest
from registry_server import RegistryServer

from cls_export import RemoteBundleError, pull_bundle, push_bundle
from cls_export.cli.main import main
from cls_export.sharing.credentials import Credentials, find_credentials

SECRET = "s3cret-p:ssword"
BASIC = Credentials("robot", SECRET).basic
AUTH = BASIC.removeprefix("Basic ")


def write_config(folder: Path, config: object) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))


def write_helper(folder: Path, answer: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install `docker-credential-test`, which gives an answer for `registry.example.com`."""
    folder.mkdir()
    helper = folder / "docker-credential-test"
    helper.write_text(
        f"#!{sys.executable}\nimport sys\n"
        "known = sys.argv[1:] == ['get'] and sys.stdin.read() == 'registry.example.com'\n"
        f"print({json.dumps(answer)!r} if known else 'credentials not found')\n"
        "sys.exit(not known)\n"
    )
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


@pytest.mark.parametrize("kind", ["config", "config with https", "variable", "podman", "password"])
def test_stored_credentials_are_found(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = {"auth": AUTH} if kind != "password" else {"username": "robot", "password": SECRET}
    key = "https://registry.example.com" if "https" in kind else "registry.example.com"
    config = {"auths": {"other.example.com": {"auth": "eDp5"}, key: entry}}
    if kind == "variable":
        monkeypatch.setenv("DOCKER_AUTH_CONFIG", json.dumps(config))
    elif kind == "podman":
        (tmp_path / "auth.json").write_text(json.dumps(config))
        monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
    else:
        write_config(tmp_path / "docker", config)
    assert find_credentials("registry.example.com") == Credentials("robot", SECRET)
    assert find_credentials("third.example.com") is None


def test_docker_hub_has_its_own_key(tmp_path: Path) -> None:
    write_config(tmp_path / "docker", {"auths": {"https://index.docker.io/v1/": {"auth": AUTH}}})
    assert find_credentials("docker.io") == Credentials("robot", SECRET)


@pytest.mark.parametrize("key", ["credHelpers", "credsStore"])
def test_credential_helpers_are_asked(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_helper(tmp_path / "bin", {"Username": "robot", "Secret": SECRET}, monkeypatch)
    helpers = {"registry.example.com": "test", "unknown.example.com": "test"}
    config = {"credHelpers": helpers, "credsStore": "test"}
    write_config(tmp_path / "docker", {key: config[key]})
    assert find_credentials("registry.example.com") == Credentials("robot", SECRET)
    assert find_credentials("unknown.example.com") is None


def test_missing_helper_is_an_error_only_for_its_own_registry(tmp_path: Path) -> None:
    config = {"credHelpers": {"registry.example.com": "missing"}, "credsStore": "missing-too"}
    write_config(tmp_path / "docker", config)
    assert find_credentials("public.example.com") is None
    with pytest.raises(RemoteBundleError, match="docker-credential-missing cannot be run"):
        find_credentials("registry.example.com")


@pytest.mark.parametrize("name", ["../../bin/sh", "a b", "x;y"])
def test_helper_is_a_plain_name(name: str, tmp_path: Path) -> None:
    write_config(tmp_path / "docker", {"credHelpers": {"registry.example.com": name}})
    with pytest.raises(RemoteBundleError, match="not the name of a credential helper"):
        find_credentials("registry.example.com")


@pytest.mark.parametrize(
    "config",
    [
        f'{{"auths": {{"registry.example.com": {{"auth": "{SECRET}"}}}}}}',
        f'{{"auths": {{"registry.example.com": {{"username": "{SECRET}"}}}}}}',
        f'["{SECRET}"]',
        f'{{"{SECRET}": ',
        "[" * 100_000,
    ],
)
def test_damaged_config_is_named_without_its_content(config: str, tmp_path: Path) -> None:
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker/config.json").write_text(config)
    with pytest.raises(RemoteBundleError, match=r"docker/config\.json") as caught:
        find_credentials("registry.example.com")
    assert "s3cret" not in str(caught.value)


def test_secrets_have_no_repr() -> None:
    assert "s3cret" not in repr(Credentials("robot", SECRET))


def log_in(registry: RegistryServer, tmp_path: Path, auth: str = AUTH) -> None:
    write_config(tmp_path / "docker", {"auths": {registry.host: {"auth": auth}}})


def test_basic_authentication(current: Path, registry: RegistryServer, tmp_path: Path) -> None:
    registry.authorization = BASIC
    log_in(registry, tmp_path)
    digest = push_bundle(current, registry.name(":v1"))
    assert pull_bundle(registry.name(f"@{digest}"), tmp_path / "pulled") == digest


@pytest.mark.parametrize("is_logged_in", [True, False])
def test_token_is_fetched_with_and_without_credentials(
    is_logged_in: bool, current: Path, registry: RegistryServer, tmp_path: Path
) -> None:
    registry.authorization = "Bearer a.b.c"
    realm = f"http://{registry.host}/token"
    registry.challenge = f'Bearer realm="{realm}",service="test",scope="repository:models:pull"'
    registry.tokens["/token"] = (BASIC if is_logged_in else None, "a.b.c")
    if is_logged_in:
        log_in(registry, tmp_path)
    digest = push_bundle(current, registry.name(":v1"))
    assert pull_bundle(registry.name(f"@{digest}"), tmp_path / "pulled") == digest
    asked = {path for _, path, _ in registry.requests if path.startswith("/token")}
    assert asked == {"/token?service=test&scope=repository%3Amodels%3Apull"}


def test_identity_token_is_exchanged(
    current: Path, registry: RegistryServer, tmp_path: Path
) -> None:
    registry.authorization = "Bearer a.b.c"
    registry.challenge = f'Bearer realm="http://{registry.host}/oauth2",service="test"'
    registry.tokens["/oauth2"] = (None, "a.b.c")
    entry = {"auth": AUTH, "identitytoken": SECRET}
    write_config(tmp_path / "docker", {"auths": {registry.host: entry}})
    push_bundle(current, registry.name(":v1"))
    assert ("POST", "/oauth2", None) in registry.requests


@pytest.mark.parametrize("challenge", ["basic", "token", "nothing", "other"])
@pytest.mark.parametrize("is_logged_in", [True, False])
def test_denied_access_is_wrong_input_that_shows_no_secret(
    challenge: str,
    is_logged_in: bool,
    current: Path,
    registry: RegistryServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    registry.authorization = "Basic never"
    challenges = {"token": f'Bearer realm="http://{registry.host}/t"', "other": "Negotiate"}
    registry.challenge = challenges.get(challenge, 'Basic realm="test"')
    registry.tokens["/t"] = ("Basic never", "a.b.c")
    if is_logged_in:
        log_in(registry, tmp_path)
    assert main(["pull", registry.name(":v1"), str(tmp_path / "pulled")]) == 2
    assert main(["push", str(current), registry.name(":v1")]) == 2
    output = capsys.readouterr()
    assert output.err.count(f"docker login {registry.host}") == 2
    assert output.err.count("\n") == 2
    for secret in ("s3cret", AUTH, base64.b64encode(SECRET.encode()).decode()):
        assert secret not in output.err + output.out
