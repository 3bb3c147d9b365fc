import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cls_export.contract.commands import run_command


class WrongInputError(ValueError):
    pass


class FailedError(RuntimeError):
    pass


def _run(command: Callable[[], int | None]) -> int:
    handler = signal.getsignal(signal.SIGTERM)
    try:
        return run_command("cls-x", command, wrong_input=(WrongInputError,), failed=(FailedError,))
    finally:
        signal.signal(signal.SIGTERM, handler)


def _raise(error: BaseException) -> Callable[[], int | None]:
    def command() -> int | None:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (WrongInputError("no such class"), 2, "cls-x: no such class\n"),
        (FailedError("no threshold"), 1, "cls-x: no threshold\n"),
        (KeyboardInterrupt(), 130, "cls-x: interrupted\n"),
        (FileNotFoundError(errno.ENOENT, "No such file", "a.json"), 2, "cls-x: a.json: No such"),
        (OSError(errno.ENOSPC, "No space left on device", "b"), 1, "cls-x: b: No space left"),
        (MemoryError(), 1, "cls-x: out of memory\n"),
        (WrongInputError("\x1b[31mred\u202e\nnext"), 2, "cls-x: \\x1b[31mred\\u202e\nnext\n"),
    ],
)
def test_expected_error_ends_in_one_message_and_its_exit_code(
    error: BaseException, code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(_raise(error)) == code
    assert capsys.readouterr().err.startswith(message)


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (1, 1)])
def test_exit_code_of_the_command_is_returned(returned: int | None, code: int) -> None:
    assert _run(lambda: returned) == code


def test_unexpected_error_is_a_bug_with_a_traceback_file_and_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["x", "a b", "--c"])

    assert _run(_raise(ZeroDivisionError("zero"))) == 1

    (file,) = tmp_path.iterdir()
    text = file.read_text()
    assert "Traceback" in text
    assert "cls-x 'a b' --c" in text
    message = capsys.readouterr().err
    assert "this is a bug" in message
    assert "ZeroDivisionError: zero" in message
    assert str(file) in message
    assert "To reproduce it: cls-x 'a b' --c" in message
    assert "Traceback" not in message


def test_traceback_is_printed_if_no_file_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    assert _run(_raise(ZeroDivisionError())) == 1
    assert "Traceback" in capsys.readouterr().err


def test_sigterm_runs_finally_blocks_and_exits_with_143(tmp_path: Path) -> None:
    cleaned = tmp_path / "cleaned"
    script = f"""
import pathlib, sys, time
from cls_export.contract.commands import run_command

def command():
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        pathlib.Path({str(cleaned)!r}).touch()

sys.exit(run_command("x", command, wrong_input=()))
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    os.kill(process.pid, signal.SIGTERM)
    process.stdout.close()
    assert process.wait(30) == 143
    assert cleaned.exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux only")
@pytest.mark.parametrize("outcome", ["pass", "raise ValueError('wrong')"])
@pytest.mark.parametrize("redirection", [">/dev/full", "| head -c 0", ">&-"])
def test_output_that_cannot_be_written_ends_in_at_most_one_line(
    outcome: str, redirection: str
) -> None:
    code = (
        "import sys\n"
        "from cls_export.contract.commands import run_command\n"
        "def command():\n"
        "    print('text ' * 100)\n"
        f"    {outcome}\n"
        "sys.exit(run_command('cls-x', command, wrong_input=(ValueError,)))"
    )
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONUNBUFFERED"}
    result = subprocess.run(
        ["bash", "-c", f'set -o pipefail; "$0" -c "$1" {redirection}', sys.executable, code],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert result.returncode in (0, 1, 2)
    assert len(result.stderr.splitlines()) <= 1
    assert "Exception ignored" not in result.stderr
