"""Keep the values of secrets out of everything that is rendered, recorded, or printed."""

import os
import re
from collections.abc import Iterable, Mapping

from cls_launch.errors import LaunchError

_SECRET_WORDS = (
    "api_key",
    "apikey",
    "access_key",
    "private_key",
    "credential",
    "credentials",
    "passwd",
    "password",
    "secret",
    "token",
)

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:-]{0,252}")
_URL_PASSWORD = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/\s@]*:[^/\s@]+@")

_MIN_LENGTH = 6
"""Shorter values of environment variables occur in a text by chance."""


def looks_secret(name: str) -> bool:
    """Whether a variable or key holds a secret, judged by its name."""
    last = name.rpartition(".")[2].lower()
    return any(last == word or last.endswith(f"_{word}") for word in _SECRET_WORDS)


def check_environment(environment: dict[str, str]) -> dict[str, str]:
    """Check plain environment variables.

    Raises:
        ValueError: A name is invalid, or is one of a secret.
    """
    for name, value in environment.items():
        _check_variable(name)
        if looks_secret(name) or _URL_PASSWORD.search(value):
            raise ValueError(
                f"{name} looks like a secret, and values are recorded in the job; name a secret of "
                f"the target instead: 'secrets={{{name}: NAME}}'"
            )
    return environment


def check_secrets(secrets: dict[str, str]) -> dict[str, str]:
    """Check the names of secrets.

    Raises:
        ValueError: A name is invalid, or is the value of the variable itself.
    """
    for variable, name in secrets.items():
        _check_variable(variable)
        is_value = bool(name) and name == os.environ.get(variable)
        if is_value or _SECRET_NAME.fullmatch(name) is None:
            raise ValueError(
                f"expected the name of a secret for {variable}, not its value; what a name refers "
                "to depends on the target, see docs/cloud.md"
            )
    return secrets


def check_arguments(arguments: Iterable[str]) -> None:
    """Check that no argument of `apps/train` holds a secret.

    Raises:
        LaunchError: The message names the key, and shows no value.
    """
    for argument in arguments:
        key, _, value = argument.partition("=")
        if (value and looks_secret(key)) or _URL_PASSWORD.search(value):
            raise LaunchError(
                f"{key:.200}: the value looks like a secret, and arguments are recorded in the "
                "job; let the job read it from an environment variable: 'secrets={VARIABLE: NAME}'"
            )


def check_rendered(text: str, secrets: Iterable[str]) -> None:
    """Check that a rendered job holds no value of a secret of this machine.

    Args:
        text: What would be submitted.
        secrets: Variables that the job reads from secrets.

    Raises:
        LaunchError: The message names the variable.
    """
    for name, value in _list_values(os.environ, secrets):
        if value in text:
            raise LaunchError(
                f"the job would record the value of the environment variable {name}; remove it "
                "from the arguments, and pass the name of a secret: 'secrets={VARIABLE: NAME}'"
            )


def hide_values(message: str) -> str:
    """Replace the values of secrets of this machine in a message."""
    for name, value in _list_values(os.environ, ()):
        message = message.replace(value, f"<value of {name}>")
    return message


def _list_values(environment: Mapping[str, str], secrets: Iterable[str]) -> list[tuple[str, str]]:
    chosen = set(secrets)
    values = []
    for name, value in environment.items():
        is_secret = name in chosen or looks_secret(name)
        if is_secret and len(value) >= _MIN_LENGTH:
            values.append((name, value))
    return values


def _check_variable(name: str) -> None:
    if _VARIABLE.fullmatch(name) is None:
        raise ValueError(f"{name!r:.100} is not the name of an environment variable")
