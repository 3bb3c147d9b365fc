"""Run the client of a service, and turn its errors into one message."""

import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence

from cls_launch.errors import LaunchError, LaunchFailedError

_MAX_SHOWN = 1000
"""Number of characters of a client's error in a message."""

_LOG_LINE = re.compile(r"[DEIW]\d{4} \d\d:\d\d:")
"""What kubectl logs before its message."""

_SECONDS = 120.0
"""How long a client may take that only talks to a server."""


def run_tool(
    command: Sequence[str],
    *,
    install: str,
    text: str | None = None,
    wrong_input: Iterable[str] = (),
    seconds: float = _SECONDS,
    with_errors: bool = False,
) -> str:
    """Run a client and return what it wrote to its standard output.

    Args:
        command: The name of the executable, and its arguments.
        install: How to get the executable, for the message if it is missing.
        text: Standard input of the client.
        wrong_input: Lowercase parts of errors that the user fixes.
        seconds: How long the client may take.
        with_errors: Return what it wrote to its standard error too.

    Raises:
        LaunchError: The executable is missing, or its error has one of `wrong_input`.
        LaunchFailedError: It failed in another way, or hangs.
    """
    name = command[0]
    if shutil.which(name) is None:
        raise LaunchError(f"{name} is not on PATH; {install}")
    try:
        process = subprocess.run(
            command,
            input=text or "",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if with_errors else subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise LaunchFailedError(
            f"{name} {command[1]} got no answer in {seconds:g} seconds; check the network"
        ) from error
    if process.returncode == 0:
        return process.stdout
    cause = _find_cause(process.stderr or "") or _find_cause(process.stdout) or "no message"
    message = f"{name} {command[1]} failed with code {process.returncode}: {cause}"
    is_wrong_input = any(part in cause.lower() for part in wrong_input)
    raise (LaunchError if is_wrong_input else LaunchFailedError)(message)


def _find_cause(output: str) -> str:
    lines = [line for line in output.strip().splitlines() if not _LOG_LINE.match(line)]
    return "\n".join(lines)[-_MAX_SHOWN:]
