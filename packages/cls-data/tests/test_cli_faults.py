"""Wrong arguments and hostile environments: every command ends in one message."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cls_data.cli.main import main

COMMANDS = (
    ["check"],
    ["convert", "--from", "image-folder"],
    ["convert", "--from", "roboflow"],
    ["split"],
    ["stats"],
    ["synth", "--up-to", "3"],
    ["preview"],
)
HEAVY = ("torch", "lightning", "matplotlib", "scipy", "torchvision")


def run_script(arguments: list[str], *, shell: str = "", **variables: str) -> "Result":
    """Run `cls-data` in a new process, with a redirection and environment variables."""
    command = [sys.executable, "-m", "cls_data.cli.main", *arguments]
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(
        ["bash", "-c", f'set -o pipefail; "$@" {shell}', "bash", *command],
        capture_output=True,
        env=environment | variables,
    )


Result = subprocess.CompletedProcess[bytes]


def check_single_message(result: Result, code: int) -> str:
    """Return the message of a failed command, which is its only output."""
    message = result.stderr.decode()
    assert result.returncode == code, message
    assert "Traceback" not in message
    assert "this is a bug" not in message
    assert message.count("cls-data:") == 1
    return message


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("kind", ["missing", "file", "empty folder", "pipe", "long name", "link"])
def test_command_explains_a_root_that_is_no_dataset(
    command: list[str], kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "ünï codé\x1b"
    if kind == "file":
        root.write_text("text")
    elif kind == "empty folder":
        root.mkdir()
    elif kind == "pipe":
        os.mkfifo(root)
    elif kind == "long name":
        root = tmp_path / ("x" * 300)
    elif kind == "link":
        root.symlink_to(root)
    before = sorted(tmp_path.iterdir())

    assert main([command[0], str(root), *command[1:]]) == 2
    output = capsys.readouterr()
    assert "cls-data" in output.err
    assert "bug" not in output.err
    assert "\x1b" not in output.err
    assert output.out == ""
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["checks", "x"], "did you mean 'check'?"),
        (["--checks", "x"], "unknown command '--checks'"),
        (["check"], "arguments are required: ROOT"),
        (["check", ""], "expected a path, got an empty text"),
        (["check", "x", "--without", ""], "expected a path"),
        (["check", "x", "--picture", "y"], "did you mean '--pictures'?"),
        (["check", "x", "--quarantin=y"], "did you mean '--quarantine'?"),
        (["check", "x", "y\x1b[31m"], r"unexpected argument 'y\x1b[31m'"),
        (["check", "x", "--workers", "0"], "expected an integer from 1 to 1024, got '0'"),
        (["check", "x", "--workers", "9" * 5000], "expected an integer from 1 to 1024"),
        (["split", "x", "--folds", "1"], "expected an integer from 2 to 1000"),
        (["split", "x", "--seed", "-1"], "expected an integer from 0 to 4294967295"),
        (["synth", "x", "--up-to", "1e3"], "expected an integer from 1 to 1000000"),
        (["preview", "x", "--size", "99999"], "expected an integer from 1 to 1024"),
        (["preview", "x", "--images", "²"], "expected an integer from 1 to 200"),
        (
            ["preview", "x", "--augmentation", "lights"],
            "'lights' is not a valid value; did you mean 'light'?",
        ),
        (["convert", "x"], "arguments are required: --from"),
    ],
)
def test_wrong_arguments_end_in_one_message(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("error:") == 1


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 5000,
        b"a: !!python/name:os.system",
        b"day: 2026-13-45",
        b"\0",
        b"a: b: c",
        b"\xff\xfe\0",
    ],
)
def test_check_names_a_damaged_config_file(
    root: Path, tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "gate.yaml"
    file.write_bytes(content)
    assert main(["check", str(root), "--config", str(file)]) == 2
    assert f"cls-data: {file}: not valid YAML" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--config", "--without"])
def test_check_reads_regular_files_only(
    root: Path, tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path, "/dev/zero"):
        assert main(["check", str(root), option, str(path)]) == 2
        assert f"cls-data: {path}: cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--json", "--quarantine", "--pictures"])
def test_check_names_a_target_that_cannot_be_written(
    root: Path, tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with (root / "train" / "annotations.jsonl").open("a") as stream:
        stream.write('{"image": "0.png", "suffix": "2"}\n')
    (tmp_path / "file").touch()
    target = tmp_path / "file" / "target"
    assert main(["check", str(root), option, str(target)]) == 2
    assert f"cls-data: {tmp_path / 'file'}" in capsys.readouterr().err


def test_names_from_data_do_not_reach_the_terminal_as_control_characters(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = root / "train" / "annotations.jsonl"
    name = "\x1b]0;title\x07\u202e.png"
    (root / "train" / "0.png").rename(root / "train" / name)
    rows = file.read_text().replace('"0.png"', r'"\u001b]0;title\u0007\u202e.png"')
    rows += r'{"image": "\u001b]0;title\u0007\u202e.png", "suffix": "2"}' + "\n"
    row = r'{"image": "1.png", "suffix": "2", "metadata": {"k\u009b": "v\u001b[2J"}}'
    file.write_text(f"{rows}{row}\n")
    main(["check", str(root)])
    main(["stats", str(root), "--by", "k\x9b"])
    output = capsys.readouterr()
    text = output.out + output.err
    assert "title" in text
    assert "[2J" in text
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(text)


@pytest.mark.parametrize(
    "arguments",
    [
        ["check"],
        ["stats"],
        ["split"],
        ["synth", "--up-to", "12"],
        ["convert", "--from", "roboflow"],
    ],
    ids=" ".join,
)
def test_commands_that_need_no_tensors_do_not_load_torch(root: Path, arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from cls_data.cli.main import main\n"
        "main(sys.argv[1:])\n"
        f"print('loaded:', *(set(sys.modules) & set({HEAVY})))"
    )
    command = [sys.executable, "-c", code, arguments[0], str(root), *arguments[1:]]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    assert result.stdout.splitlines()[-1].strip() == "loaded:"
    assert "this is a bug" not in result.stderr


@pytest.mark.parametrize("command", ["", "check", "convert", "split", "stats", "synth", "preview"])
def test_help_loads_neither_torch_nor_lightning(command: str) -> None:
    code = (
        "import sys\n"
        "from cls_data.cli.main import main\n"
        "assert main([*sys.argv[1:], '--help']) == 0\n"
        f"print('loaded:', *(set(sys.modules) & set({HEAVY})))"
    )
    arguments = [command] if command else []
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True
    )
    assert result.stdout.splitlines()[-1].strip() == "loaded:"


def test_help_imports_only_the_standard_library_and_this_project() -> None:
    code = "import sys; from cls_data.cli.main import main; main(['--help']); print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    modules = set(result.stdout.splitlines()[-1].split())
    assert modules.isdisjoint({"numpy", "PIL", "pydantic", "rich", "loguru", "yaml"})


@pytest.mark.parametrize("arguments", [["check"], ["stats"], ["split"]], ids=" ".join)
@pytest.mark.parametrize("redirection", [">/dev/full", "| head -c 0", ">&-"])
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux only")
def test_output_that_cannot_be_written_ends_in_at_most_one_line(
    root: Path, arguments: list[str], redirection: str
) -> None:
    result = run_script([arguments[0], str(root), *arguments[1:]], shell=redirection)
    if redirection == ">/dev/full":
        message = check_single_message(result, 1)
        assert message == "cls-data: No space left on device\n"
    else:
        assert result.returncode == 0
        assert result.stderr == b""


@pytest.mark.parametrize("arguments", [["check"], ["stats"]], ids=" ".join)
def test_commands_print_ascii_in_the_c_locale(root: Path, arguments: list[str]) -> None:
    file = root / "train" / "annotations.jsonl"
    (root / "train" / "0.png").rename(root / "train" / "ü.png")
    file.write_text(file.read_text().replace("0.png", "ü.png").replace('"10"', '"é"'))
    result = run_script([arguments[0], str(root)], LC_ALL="C", PYTHONIOENCODING="ascii")
    assert result.stdout.isascii()
    assert result.stderr.isascii()
    assert b"bug" not in result.stderr
