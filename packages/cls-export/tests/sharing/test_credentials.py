"""Credentials come from where docker login keeps them, and are never shown."""

import base64
import json
import os
import re
import sys
from pathlib import Path

import pytest
from registry_server import Handler, RegistryServer

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


@pytest.mark.parametrize(
    "key",
    [
        "registry.example.com/models/jersey",
        "registry.example.com/models",
        "https://registry.example.com/",
        "https://registry.example.com/v1/",
        "https://registry.example.com/v2/",
    ],
)
def test_every_form_of_a_key_is_found(key: str, tmp_path: Path) -> None:
    auths = {"registry.example.com/model": {"auth": "eDp5"}, key: {"auth": AUTH}}
    write_config(tmp_path / "docker", {"auths": auths})
    found = find_credentials("registry.example.com", "models/jersey")
    assert found == Credentials("robot", SECRET)
    assert find_credentials("registry.example.org", "models/jersey") is None


def test_login_for_a_part_of_a_registry_is_preferred(tmp_path: Path) -> None:
    auths = {"r.io": {"auth": "eDp5"}, "r.io/models": {"auth": AUTH}}
    write_config(tmp_path / "docker", {"auths": auths})
    assert find_credentials("r.io", "models/jersey") == Credentials("robot", SECRET)
    assert find_credentials("r.io", "other") == Credentials("x", "y")


@pytest.mark.parametrize("variable", ["XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"])
def test_login_of_podman_is_found_after_that_of_docker(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "xdg/containers/auth.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"auths": {"r.io": {"auth": AUTH}}}))
    monkeypatch.setenv(variable, str(tmp_path / "xdg"))
    assert find_credentials("r.io") == Credentials("robot", SECRET)
    write_config(tmp_path / "docker", {"auths": {"r.io": {"auth": "eDp5"}}})
    assert find_credentials("r.io") == Credentials("x", "y")


@pytest.mark.parametrize("entry", [{}, {"email": "me@example.com"}, None, "text"])
def test_entry_without_a_secret_leads_to_the_store(
    entry: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_helper(tmp_path / "bin", {"Username": "robot", "Secret": SECRET}, monkeypatch)
    config = {"auths": {"registry.example.com": entry}, "credsStore": "test"}
    write_config(tmp_path / "docker", config)
    assert find_credentials("registry.example.com") == Credentials("robot", SECRET)


@pytest.mark.parametrize("name", ["docker.io", "index.docker.io", "registry-1.docker.io"])
@pytest.mark.parametrize("key", ["https://index.docker.io/v1/", "docker.io"])
def test_every_name_of_docker_hub_is_found(key: str, name: str, tmp_path: Path) -> None:
    write_config(tmp_path / "docker", {"auths": {key: {"auth": AUTH}}})
    assert find_credentials(name) == Credentials("robot", SECRET)


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
        '{"auths": {"registry.example.com": {"auth": "czNjcmV0"}}}',  # no colon
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


@pytest.mark.parametrize(
    ("status", "content", "code", "message"),
    [
        (200, b"<html>", 1, "answers without a token"),
        (200, b'{"token": 3}', 1, "answers without a token"),
        (200, b'{"token": "a\\nb"}', 1, "answers without a token"),
        (200, b"[" * 100_000, 1, "answers without a token"),
        (200, b'"' + bytes(2**20), 1, "answers without a token"),
        (302, b"", 1, r"gives no token \(HTTP 302\)"),
        (429, b"", 1, r"gives no token \(HTTP 429\)"),
        (503, b"", 1, r"gives no token \(HTTP 503\)"),
        (403, b"", 2, "denies access"),
        (200, b'{"token": "wrong"}', 2, "denies access"),
    ],
)
def test_failing_token_server_is_one_message(
    status: int,
    content: bytes,
    code: int,
    message: str,
    registry: RegistryServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    registry.authorization = "Bearer right"
    realm = f"http://{registry.host}/token?account=robot"
    registry.challenge = f'Negotiate, Bearer realm="{realm}", scope="s"'

    def give(handler: Handler) -> bool:
        if not handler.path.startswith("/token"):
            return False
        assert handler.path == "/token?account=robot&scope=s"
        handler.answer(status, content)
        return True

    registry.override = give
    assert main(["pull", registry.name(":v1"), str(tmp_path / "pulled")]) == code
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error)


@pytest.mark.parametrize(
    "realm", ["", "x", "http://[::1", "file:///etc/passwd", "http://registry.example.com/token"]
)
def test_token_server_with_a_wrong_address_gets_no_credentials(
    realm: str, registry: RegistryServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registry.authorization = "Bearer right"
    registry.challenge = f'Bearer realm="{realm}"'
    log_in(registry, tmp_path)
    assert main(["pull", registry.name(":v1"), str(tmp_path / "pulled")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert {header for _, _, header in registry.requests} == {None}


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
