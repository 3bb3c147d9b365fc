"""Every command that a message, report, docstring, or help page advises is accepted.

Commands are found in the string constants of all packages: between backticks, behind a colon, as a
whole string, and in the lines of help pages. The parser or composition of each command then reads
it, with placeholders such as RUN replaced by a word.
"""

import ast
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from forked_app import finish

from cls_data.cli import main as data_cli
from cls_export.cli import main as export_cli
from cls_launch import main as launch_app
from cls_launch.settings import compose_launch
from cls_launch.training import compose_training
from cls_report.commands import compare_parser, compare_runs, report, report_parser
from cls_train.composition.arguments import parse_command_line
from cls_train.composition.compose import Composer
from cls_train.main import compose_configs

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCES = sorted(
    path
    for pattern in ("packages/*/src/**/*.py", "apps/*/src/**/*.py", "apps/*/*.py")
    for path in REPOSITORY.glob(pattern)
)
EVALUATE = "python -m cls_train.stages.evaluate"
NAMES = rf"apps/(?:train|report|compare|launch)|cls-data|cls-export|{re.escape(EVALUATE)}"
COMMAND = rf"(?:uv run (?:--extra \S+ )?)?(?:{NAMES})(?: [^`\n]*)?"
CONTEXTS = (
    re.compile(rf"`({COMMAND})`"),
    re.compile(rf"(?:: |^)((?:{COMMAND}))(?=$|\n|; |\. |\))", re.MULTILINE),
    re.compile(rf"^  ((?:{COMMAND}))$", re.MULTILINE),
)
PROSE = re.compile(
    r"^apps/train \[GROUP|^apps/launch (?:\[|.*\[target=)|^cls-data COMMAND|^cls-data reads"
    r"|^apps/train --help lists"
)
CONTINUED = re.compile(r" \\\n +")
"""The end of a line that the next one continues."""
WORD = "VALUE"


def find_texts(path: Path) -> Iterator[str]:
    """Yield the string constants of a file; a value in an f-string becomes one word."""
    tree = ast.parse(path.read_text("utf-8"))
    inner = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = []
            for value in node.values:
                inner.add(id(value))
                is_text = isinstance(value, ast.Constant)
                parts.append(str(value.value) if is_text else WORD)
            yield "".join(parts)
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and id(node) not in inner:
            yield node.value


def find_commands() -> dict[str, str]:
    """Return every advised command, with the file that advises it."""
    commands = {}
    for path in SOURCES:
        for text in find_texts(path):
            text = CONTINUED.sub(" ", text)
            for context in CONTEXTS:
                for command in context.findall(text):
                    if not PROSE.match(command):
                        commands[command] = path.name
    return commands


COMMANDS = find_commands()


def split_command(command: str) -> tuple[str, list[str]]:
    """Return the name of a command and its arguments, without `uv run`, dots, and comments."""
    command = re.sub(r"^uv run (--extra \S+ )?", "", command)
    command = re.sub(r"   +\S.*$", "", command)  # the explanation in a help page
    command = re.sub(r" > \S+$", "", command)
    name = next(each for each in re.findall(NAMES, command))
    arguments = shlex.split(command.removeprefix(name))
    plain = [argument.removesuffix("...").removesuffix("…") for argument in arguments]
    return name, [argument for argument in plain if argument]


def read_command(name: str, arguments: list[str]) -> None:
    """Let a command read its arguments, as it does before it works."""
    if name == "apps/report":
        report_parser().parse_args(arguments)
    elif name == "apps/compare":
        options = compare_parser().parse_args(arguments)
        assert options.seeds or len(options.runs) == 2
    elif name == "cls-data":
        data_cli._parse(arguments)
    elif name == "cls-export":
        parser, _ = export_cli._build_parsers()
        parser.parse_args(arguments)
    elif name == EVALUATE:
        assert len(arguments) == 1
    elif name == "apps/launch":
        read_launch(arguments)
    else:
        command = parse_command_line([each for each in arguments if each != WORD])
        assert compose_configs(command, Composer(REPOSITORY / "conf", command))


def read_launch(arguments: list[str]) -> None:
    """Let apps/launch read the arguments on both sides of `--`."""
    launch = launch_app.parse([argument.replace(WORD, "value") for argument in arguments])
    settings, target, _ = compose_launch(launch.settings, REPOSITORY / "conf")
    if launch.training is not None:
        is_sweep = bool(launch.flags & {"-m", "--multirun"})
        assert compose_training(
            launch.training, settings, target, REPOSITORY / "conf", multirun=is_sweep
        )


@pytest.mark.parametrize("command", COMMANDS)
def test_an_advised_command_is_accepted(command: str) -> None:
    name, arguments = split_command(command)
    if not arguments:
        return
    if name.startswith("cls-") and len(arguments) == 1:  # a mention, such as `cls-data split`
        arguments.append("--help")
    code: object = 0
    try:
        read_command(name, arguments)
    except SystemExit as stop:
        code = stop.code
    assert code in (None, 0)


def test_no_advised_command_is_overlooked() -> None:
    found = " ".join(COMMANDS)
    for path in SOURCES:
        for text in find_texts(path):
            for mention in re.findall(r"uv run [^`\n;]*", text):
                assert mention.strip() in found or mention.strip() in text.split("`"), mention
    assert len(COMMANDS) > 50


@pytest.mark.parametrize(
    "command",
    [
        *("cls-data verify ROOT", "apps/report", "cls-export bench", "apps/train lr=1"),
        *("apps/launch stop", "apps/launch run.name=a --", "apps/launch target=k8s run.name=a --"),
    ],
)
def test_a_wrong_command_is_not_accepted(command: str) -> None:
    with pytest.raises((SystemExit, ValueError)) as caught:
        read_command(*split_command(command))
    assert not isinstance(caught.value, SystemExit) or caught.value.code != 0


@pytest.mark.slow
def test_the_advice_for_a_run_without_predictions_writes_them(
    train_command: Callable[..., list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    overrides = ("callbacks.predictions=null", "stages.export=false", "trainer.max_epochs=1")
    finish(train_command(tmp_path, "run", *overrides)[2:], tmp_path / "run.txt")
    predictions = tmp_path / "run/predictions"
    assert (predictions / "valid.npz").is_file()

    shutil.rmtree(predictions)
    assert compare_runs(["--seeds", "--root", str(tmp_path)]) == 2
    advice = capsys.readouterr().err.rpartition("run: uv run python ")[2].strip()
    assert advice.startswith("-m cls_train.stages.evaluate ")
    subprocess.run([sys.executable, *shlex.split(advice)], check=True, capture_output=True)
    assert (predictions / "test.npz").is_file()
    assert report([str(tmp_path / "run")]) == 0
