"""The commands in other environments: full disks, closed pipes, locales, odd targets."""

import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from report_data import MakeRun, make_predictions

MAIN = "import sys; from cls_report.commands import {0}; sys.exit({0}())"


@pytest.fixture
def runs(make_run: MakeRun) -> list[str]:
    """Write two run folders with names that are not ASCII."""
    names = ("älter", "new")
    folders = [make_run(name, seed, make_predictions(8)).path for seed, name in enumerate(names)]
    return [str(folder) for folder in folders]


def call(
    command: str, *arguments: str, env: dict[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[bytes]:
    # A limit of file sizes would cut bytecode files short.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **(env or {})}
    return subprocess.run(
        [sys.executable, "-c", MAIN.format(command), *arguments],
        env=environment,
        check=False,
        stderr=subprocess.PIPE,
        **{"stdout": subprocess.PIPE, **options},
    )


@pytest.mark.parametrize("command", ["report", "compare_runs"])
def test_help_has_examples_and_exit_codes_and_imports_nothing_heavy(command: str) -> None:
    code = f"""if True:
        import sys
        from cls_report.commands import {command}
        try:
            {command}(["--help"])
        finally:
            heavy = {{"numpy", "scipy", "jinja2", "PIL", "torch", "rich"}} & sys.modules.keys()
            assert not heavy, heavy
    """
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert b"examples:\n  uv run " in finished.stdout
    assert b"Exit codes: 0 success" in finished.stdout


def limit_file_size() -> None:
    """Let every write fail beyond 4 kB, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))


def test_a_full_disk_is_one_message_and_keeps_the_older_report(runs: list[str]) -> None:
    target = Path(runs[0]) / "report.html"
    target.write_text("older")
    finished = call("report", runs[0], preexec_fn=limit_file_size)
    assert finished.returncode == 1
    message = finished.stderr.decode()
    assert message == f"apps/report: {target}: the report cannot be written: File too large\n"
    assert target.read_text() == "older"
    assert list(Path(runs[0]).glob(".*")) == []


def test_a_full_standard_output_is_one_message(runs: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        finished = call("compare_runs", *runs, stdout=full)
    assert finished.returncode == 1
    assert finished.stderr.count(b"\n") == 1
    assert b"No space left on device" in finished.stderr


@pytest.mark.parametrize("command", ["report", "compare_runs"])
def test_a_closed_pipe_ends_the_command_without_a_message(runs: list[str], command: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    finished = call(command, *runs, stdout=writer)
    os.close(writer)
    assert (finished.returncode, finished.stderr) == (0, b"")


@pytest.mark.parametrize("encoding", [{"LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}])
def test_names_that_the_terminal_cannot_show_are_escaped(
    runs: list[str], encoding: dict[str, str]
) -> None:
    for command in ("report", "compare_runs"):
        finished = call(command, *runs, env=encoding)
        assert (finished.returncode, finished.stderr) == (0, b"")
    assert "älter" in (Path(runs[0]) / "report.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("folder", "this is a folder; expected the name of a file"),
        ("file/report.html", "file is not a folder"),
        ("n" * 300, "File name too long"),
        ("/proc/report.html", "No such file or directory"),
    ],
)
def test_a_target_that_cannot_be_written_is_wrong_input(
    runs: list[str], tmp_path: Path, target: str, reason: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    path = tmp_path / target
    finished = call("compare_runs", *runs, "--html", str(path))
    assert finished.returncode == 2
    (message,) = finished.stderr.decode().splitlines()
    assert message.startswith(f"apps/compare: {path}: the report cannot be written: ")
    assert message.endswith(reason)


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_read_only_run_folder_is_wrong_input(runs: list[str]) -> None:
    folder = Path(runs[0])
    folder.chmod(0o500)
    finished = call("report", runs[0])
    folder.chmod(0o700)
    assert finished.returncode == 2
    assert b"the report cannot be written: Permission denied" in finished.stderr


@pytest.mark.parametrize("path", ["missing", "a\nb", "\udcff", "x" * 300, ""])
def test_a_run_that_does_not_exist_is_named_in_one_message(tmp_path: Path, path: str) -> None:
    finished = call("report", str(tmp_path / path))
    assert finished.returncode == 2
    assert b"not a run folder (no config.yaml); expected" in finished.stderr
