"""Settings of any kind end in a valid configuration, a run, or one message that names the key."""

import inspect
import os
import random
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from forked_app import REPOSITORY, start
from omegaconf import DictConfig, OmegaConf

from cls_export.contract.commands import EXIT_WRONG_INPUT
from cls_export.contract.text import shorten_long_words
from cls_train.composition.arguments import parse_command_line
from cls_train.composition.compose import Composer
from cls_train.composition.targets import find_target
from cls_train.errors import ConfigError
from cls_train.main import compose_configs

pytestmark = [pytest.mark.slow, pytest.mark.faults]

SEED = 18
PROCESSES = 2
MAX_SECONDS = 60
MAX_MESSAGE = 5_000
"""Characters of one message, whatever the length of the value."""

SETTINGS_PER_RUN = 3

KEYS_OF_FOLDERS = ("data.root", "data.store", "run.root")
"""The check writes rendered images and stores there."""

KEYS_OF_THE_RUN = frozenset({"run.name", "run.root", "data.root", "stages.evaluate"})
"""Set by the test that trains."""

CONF = REPOSITORY / "conf"

GROUPS_WITHOUT_LEAVES = ("debug", "experiment", "launch")
"""`debug` is part of every case. Experiments combine choices of the other groups. Only
`apps/launch` reads `launch`."""

CHOICES_ELSEWHERE = {
    ("distillation", "checkpoint"),  # needs a finished run
    ("logger", "mlflow"),  # needs an extra
    ("logger", "wandb"),  # needs an extra
    ("model", "timm"),  # needs an extra
    ("trainer", "gpu"),  # needs a GPU
    ("data", "folder"),  # needs a folder
    ("data", "jsonl"),  # needs a folder
    ("data", "synthetic"),  # renders many images
    ("preprocessing", "pretrained"),  # needs weights
}

VALUES = (
    "null",
    "",
    "text",
    "true",
    "0",
    "-1",
    "1",
    "0.5",
    "1e30",
    "123456789012345678901234567890",
    "inf",
    "nan",
    "[]",
    "[1,2]",
    "{a: 1}",
    "'名前 é ̈ \u202e'",
    "'" + "x" * 10_000 + "'",
    "[[[[[[[[1]]]]]]]]",
)


class Case(NamedTuple):
    """One setting to try."""

    choice: str
    key: str
    value: str

    @property
    def overrides(self) -> list[str]:
        setting = f"{self.key}={self.value}"
        return [self.choice, setting] if self.choice else [setting]


@cache
def list_keys() -> list[tuple[str, str]]:
    """Return each choice of each group with each key it adds: its leaves and its parameters."""
    default = find_keys([])
    keys = [("", key) for key in sorted(default)]

    for group in sorted(path for path in CONF.iterdir() if path.is_dir()):
        if group.name in GROUPS_WITHOUT_LEAVES:
            continue
        for file in sorted(group.glob("*.yaml")):
            if (group.name, file.stem) in CHOICES_ELSEWHERE:
                continue
            choice = f"{group.name}={file.stem}"
            keys += [(choice, key) for key in sorted(find_keys([choice]) - default)]
    return keys


def draw_cases(count: int, seed: int) -> list[Case]:
    """Draw values for every key in turn, without repetition, until there are `count` cases."""
    generator = random.Random(seed)
    keys = list_keys()
    keys = generator.sample(keys, len(keys))

    orders = {}
    for key in keys:
        orders[key] = generator.sample(VALUES, len(VALUES))

    cases = []
    for index in range(count):
        choice, key = keys[index % len(keys)]
        value = orders[choice, key][index // len(keys)]
        cases.append(Case(choice, key, value))
    return cases


@cache
def get_composer() -> Composer:
    """Return the composer of all cases, which has read the YAML files."""
    return Composer(CONF, parse_command_line([]))


def find_keys(overrides: Sequence[str]) -> set[str]:
    """Return the dotted keys of all plain values, and of all constructor parameters."""
    composer = get_composer()
    (run,) = composer.compose_runs(["data=synthetic_tiny", *overrides], multirun=False)
    return set(iterate_node(run.settings, ""))


def iterate_node(node: Any, path: str) -> Iterator[str]:
    if not isinstance(node, DictConfig) or len(node) == 0:
        yield path
        return

    prefix = f"{path}." if path else ""
    target = None if OmegaConf.is_missing(node, "_target_") else node.get("_target_")
    if target is not None:
        for name in inspect.signature(find_target(target, path)).parameters:
            yield f"{prefix}{name}"
    for name in map(str, node):
        child = None if OmegaConf.is_missing(node, name) else node._get_node(name)
        yield from iterate_node(child, f"{prefix}{name}")


class Outcome(NamedTuple):
    """How the app ended for one case."""

    case: Case
    code: int | None
    output: str
    files: tuple[str, ...]

    def describe_fault(self) -> str | None:
        """Return what is wrong with the outcome, or None."""
        if self.code is None:
            return f"no end within {MAX_SECONDS} s"
        if "Traceback" in self.output or "this is a bug" in self.output:
            return "a traceback, or reported as a bug"
        if self.files and self.case.key not in KEYS_OF_FOLDERS:
            return f"files were written: {self.files}"
        if self.code == 0:
            return None
        if self.code != EXIT_WRONG_INPUT:
            return f"exit code {self.code}"

        message = self.output[self.output.rfind("apps/train: ") :]
        if len(message) > MAX_MESSAGE:
            return f"a message of {len(message)} characters"
        if not names_key(message, self.case.key):
            return "the message does not name the key"
        return None


def names_key(message: str, key: str) -> bool:
    """Whether a message names the key, or begins with the node whose class refuses it."""
    node, _, _ = key.rpartition(".")
    return key in message or (node != "" and message.startswith(f"apps/train: {node}: "))


def try_cases(cases: Sequence[Case], folder: Path) -> list[Outcome]:
    """Check each case: first without PyTorch, then with `--check` in a process of its own."""
    composer = get_composer()
    outcomes = []
    remaining = []
    for case in cases:
        message = find_early_message(case, folder, composer)
        if message is None:
            remaining.append(case)
        else:
            outcome = Outcome(case, EXIT_WRONG_INPUT, f"apps/train: {message}", ())
            outcomes.append(outcome)

    with ThreadPoolExecutor(PROCESSES) as pool:
        outcomes += pool.map(lambda case: try_case(case, folder), remaining)
    return outcomes


def find_early_message(case: Case, folder: Path, composer: Composer) -> str | None:
    """Return the message of the check that precedes PyTorch, as the terminal shows it."""
    command = parse_command_line([*base_settings(folder), *case.overrides])
    try:
        compose_configs(command, composer)
    except ConfigError as error:
        return shorten_long_words(str(error))
    return None


def try_case(case: Case, folder: Path) -> Outcome:
    """Run `apps/train --check` in an empty folder."""
    place = Path(tempfile.mkdtemp(dir=folder))
    output = place / "output.txt"
    arguments = [*base_settings(folder), *case.overrides, "--check"]
    process = start(arguments, output, prepare=partial(os.chdir, place))
    process.join(MAX_SECONDS)
    code = process.exitcode
    if code is None:
        process.kill()
        process.join()

    text = output.read_text()
    files = tuple(str(path) for path in place.iterdir() if path != output)
    shutil.rmtree(place)
    return Outcome(case, code, text, files)


def base_settings(folder: Path) -> list[str]:
    """Return the settings of every case, which share a rendered data set."""
    return ["debug=tiny", "data=synthetic_tiny", f"data.root={folder}/data", "data.batch_size=4"]


def describe_faults(outcomes: Sequence[Outcome]) -> str:
    """Return one paragraph per wrong outcome."""
    paragraphs = []
    for outcome in outcomes:
        fault = outcome.describe_fault()
        if fault is not None:
            settings = " ".join(outcome.case.overrides)
            paragraphs.append(f"{settings[:200]}: {fault}\n{outcome.output[-1500:]}")
    return "\n\n".join(paragraphs)


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the rendered data set of every case."""
    folder = tmp_path_factory.mktemp("settings")
    outcome = try_case(Case("", "seed", "1"), folder)
    assert outcome.code == 0, outcome.output
    return folder


def test_every_setting_is_valid_or_ends_in_one_message_with_its_key(
    data_folder: Path, short: bool
) -> None:
    count = 30 if short else 1_200
    outcomes = try_cases(draw_cases(count, SEED), data_folder)

    num_valid = sum(outcome.code == 0 for outcome in outcomes)
    print(f"seed {SEED}: {num_valid} of {count} settings are valid")
    assert not describe_faults(outcomes)
    assert 0 < num_valid < count


@pytest.mark.parametrize("attempt", range(3))
def test_settings_that_pass_the_check_train_to_the_end(
    data_folder: Path, tmp_path: Path, short: bool, attempt: int
) -> None:
    if short and attempt > 0:
        pytest.skip("one attempt is enough; run pytest -m faults")
    generator = random.Random(SEED + attempt)
    composer = get_composer()
    valid: list[Case] = []
    while len(valid) < SETTINGS_PER_RUN:
        keys = {case.key for case in valid}
        case = generator.choice(draw_cases(1_200, generator.randrange(10**6)))
        is_free = case.choice == "" and case.key not in (keys | KEYS_OF_THE_RUN)
        if not is_free or find_early_message(case, data_folder, composer) is not None:
            continue
        if try_case(case, data_folder).code == 0:
            valid.append(case)

    settings = [override for case in valid for override in case.overrides]
    print(f"seed {SEED + attempt}:", *settings)
    run = [f"run.root={tmp_path}", "run.name=one"]
    output = tmp_path / "output.txt"
    arguments = [*base_settings(data_folder), *settings, *run]
    process = start(arguments, output, prepare=partial(os.chdir, tmp_path))
    process.join(300)

    text = output.read_text()
    assert process.exitcode in (0, EXIT_WRONG_INPUT), text
    assert "Traceback" not in text
    assert "this is a bug" not in text
    is_finished = (tmp_path / "one/summary.json").exists()
    assert is_finished == (process.exitcode == 0)
