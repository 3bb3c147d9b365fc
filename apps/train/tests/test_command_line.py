"""The command line: what is composed is what is checked and what runs."""

import functools
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cls_train.composition.arguments import parse_command_line
from cls_train.composition.compose import Composer
from cls_train.composition.config import RunConfig
from cls_train.errors import ConfigError
from cls_train.main import compose_configs

REPOSITORY = Path(__file__).resolve().parents[3]
CONF = REPOSITORY / "conf"


@functools.cache
def create_composer(*flags: str) -> Composer:
    return Composer(CONF, parse_command_line(flags))


def compose_all(*arguments: str) -> list[RunConfig]:
    """Compose and check every run of a command line."""
    command = parse_command_line(arguments)
    has_folder = any(argument.startswith(("--config", "hydra.search")) for argument in arguments)
    composer = Composer(CONF, command) if has_folder else create_composer()
    return [config for config, _ in compose_configs(command, composer)]


def compose_one(*arguments: str) -> RunConfig:
    (config,) = compose_all(*arguments)
    return config


def refusal(*arguments: str) -> str:
    """Return the message for a command line that is refused."""
    with pytest.raises(ConfigError) as caught:
        compose_all(*arguments)
    return str(caught.value)


@pytest.mark.parametrize(
    ("sweep", "key", "values"),
    [
        ("seed=range(1,3)", "seed", [1, 2]),
        ("seed=1,2,3", "seed", [1, 2, 3]),
        ("optimizer.lr=choice(0.01,0.001)", "optimizer.lr", [0.01, 0.001]),
        ("model=glob(resnet*)", "model.name", ["resnet18", "resnet34", "resnet50"]),
        ("model=resnet18,resnet34", "model.name", ["resnet18", "resnet34"]),
        ("run.name='a,b',c", "run.name", None),
        ("data.class_weights=null,balanced", "data.class_weights", [None, "balanced"]),
    ],
)
@pytest.mark.parametrize("flag_first", [True, False])
def test_a1_every_sweep_of_hydra_runs(
    sweep: str, key: str, values: Sequence[Any] | None, flag_first: bool
) -> None:
    arguments = ["-m", sweep] if flag_first else [sweep, "--multirun"]
    if values is None:  # a quoted comma is part of the value, which is no valid name
        assert "run.name: expected letters, digits, and _ . = -" in refusal(*arguments)
        return
    seen = []
    for config in compose_all(*arguments):
        value: Any = config.model_dump()
        for name in key.split("."):
            value = value[name]
        seen.append(value)
    assert seen == values


def test_a1_sweeps_are_combined_with_those_of_the_yaml_files(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\nhydra:\n  sweeper:\n    params:\n      seed: range(1,3)\n"
    (tmp_path / "experiment/swept.yaml").write_text(text)
    arguments = ("experiment=swept", "-m", "optimizer.lr=0.1,0.2")
    configs = compose_all("--config-dir", str(tmp_path), *arguments)
    rows = [(config.seed, config.optimizer["lr"]) for config in configs]
    assert rows == [(1, 0.1), (1, 0.2), (2, 0.1), (2, 0.2)]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["seed=1,2,3"], "add -m to run each of them. For a list write 'seed=[1,2,3]'"),
        (["seed=range(1,3)"], "seed=range(1,3): several values are several runs; add -m"),
        (["model=resnet18,resnet34"], "add -m to run each of them"),
        (["-m", "seed=interval(0,1)"], "an interval has no values to run"),
        (["-m", "seed=range(3,1)"], "there are no values to run"),
        (["-m", "seed=range(1,1000000000)"], "more than 1000 runs"),
        (["-m", "seed=range(1,99)", "optimizer.lr=range(1,99)"], "more than 1000 runs"),
        (["-m", "seed=1,2", "optimizer.lr=abc"], "the run seed=1 optimizer.lr=abc: optimizer.lr"),
        (["-m", "seed=1,x"], "the run seed=x: seed: expected an integer"),
    ],
)
def test_a2_a_wrong_sweep_is_one_message(arguments: list[str], expected: str) -> None:
    assert expected in refusal(*arguments)


def test_a3_choices_of_another_folder_are_composed_and_checked(tmp_path: Path) -> None:
    for folder, name, text in [
        ("experiment", "mine", "# @package _global_\nseed: 7\n"),
        ("optimizer", "slow", "_target_: torch.optim.SGD\nlr: 0.001\n"),
        ("lab", "two", "# @package _global_\nmonitor:\n  metric: valid_top5\n"),
    ]:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{name}.yaml").write_text(text)
    overrides = ("experiment=mine", "optimizer=slow", "lab=two")
    for arguments in (
        ("--config-dir", str(tmp_path), *overrides),
        (*overrides, f"hydra.searchpath=[file://{tmp_path}]"),
    ):
        config = compose_one(*arguments)
        assert (config.seed, config.optimizer["lr"]) == (7, 0.001)
        assert config.monitor.metric == "valid_top5"

    (tmp_path / "experiment/typo.yaml").write_text("# @package _global_\nsede: 7\n")
    message = refusal("--config-dir", str(tmp_path), "experiment=typo")
    assert "sede: unknown key; did you mean 'seed'?" in message


@pytest.mark.parametrize("flag", ["--config-dir", "--config-path"])
def test_a3_a_missing_folder_is_reported(tmp_path: Path, flag: str) -> None:
    assert "is not a folder" in refusal(flag, str(tmp_path / "nowhere"))
    assert "did you mean 'config'?" in refusal("--config-name", "confg")


@pytest.mark.parametrize(
    "argument",
    [
        "+hydra.job.env_set.PYTHONPATH=DIR",
        "hydra.job.env_copy=[HOME]",
        "+hydra.callbacks.x._target_=shutil.copy",
        "hydra.launcher._target_=os.system",
        "hydra/launcher=joblib",
        "hydra/sweeper=optuna",
        "hydra.run.dir=elsewhere",
        "hydra.job.chdir=true",
        "hydra={job:{chdir:true}}",
        "~hydra.callbacks",
        "model@hydra.job.env_set=resnet18",
        "-m hydra.sweeper._target_=os.system seed=1,2",
    ],
)
def test_a4_settings_of_hydra_that_are_not_used_are_refused(argument: str) -> None:
    assert "this setting of Hydra is not supported" in refusal(*argument.split(maxsplit=2))


@pytest.mark.parametrize(
    "node",
    [
        "callbacks: {x: {_target_: shutil.copy}}",
        "job: {env_set: {PYTHONPATH: /tmp}}",
        "launcher: {_target_: os.system}",
    ],
)
def test_a4_settings_of_hydra_in_yaml_files_are_refused(tmp_path: Path, node: str) -> None:
    (tmp_path / "experiment").mkdir()
    text = f"# @package _global_\nhydra:\n  {node}\n"
    (tmp_path / "experiment/hostile.yaml").write_text(text)
    message = refusal("--config-dir", str(tmp_path), "experiment=hostile")
    assert "this setting of Hydra is not supported" in message


@given(value=st.text(st.characters(exclude_categories=["C"]), max_size=20))
@example("/x/run=1")
@example("/x/set#1")
@example("it's")
@example('say "hi"')
@example("back\\slash")
@example("ünïcode")
@settings(max_examples=60, deadline=None)
def test_a5_a_value_that_cannot_be_parsed_names_a_form_that_works(value: str) -> None:
    import shlex

    from hydra.core.override_parser.overrides_parser import OverridesParser

    from cls_train.composition.overrides import parse_overrides

    try:
        parse_overrides([f"data.root={value}"], None)  # type: ignore[arg-type]
    except ConfigError as error:
        message = str(error)
        assert message.startswith(f"data.root={value}: ")
        if "quote the value" in message:
            _, _, quoted = message.partition("special characters: ")
            (argument,) = shlex.split(quoted)
            assert OverridesParser.create().parse_override(argument).value() == value


@pytest.mark.parametrize("argument", ["data.root=/x/run=1", "data.root=/x/set#1"])
def test_a5_the_quoted_form_is_printed(argument: str) -> None:
    _, _, value = argument.partition("=")
    assert f"""'data.root="{value}"'""" in refusal("data=jsonl", argument)


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("seed=range(1,3", "seed=range(1,3: the bracket ( is not closed"),
        ("seed=1,range(2,3", "the bracket ( is not closed"),
        ("preprocessing.size=[1,2", "the bracket [ is not closed"),
        ("optimizer={lr:1", "the bracket { is not closed"),
        ('run.name="abc', 'the quote " is not closed'),
        ("run.name='abc", "the quote ' is not closed"),
    ],
)
def test_an_unclosed_bracket_or_quote_is_named(argument: str, expected: str) -> None:
    message = refusal("-m", argument)
    assert expected in message
    assert "quote the value" not in message


@pytest.mark.parametrize(
    ("group", "text", "package"),
    [
        ("experiment", "optimizer: {lr: 0.1}", "_global_"),
        ("debug", "seed: 2", "_global_"),
        ("gate", "dark_images: off", "data.gate"),
    ],
)
def test_a_file_without_its_package_line_is_named(
    tmp_path: Path, group: str, text: str, package: str
) -> None:
    file = tmp_path / group / "mine.yaml"
    file.parent.mkdir()
    file.write_text(f"{text}\n")
    message = refusal("--config-dir", str(tmp_path), f"{group}=mine")
    assert message == f"{file}: add '# @package {package}' as its first line"


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("seed", "seed: expected KEY=VALUE"),
        ("=3", "expected KEY=VALUE, but the key is empty"),
        ("a=" + "[" * 3000, "the bracket [ is not closed"),
        ("a=" + "[" * 500 + "]" * 500, "a"),
        ("seed=${", "quote the value"),
        ("seed=${x}", "Interpolation key 'x' not found"),
        ("seed=${seed}", "Recursive interpolation detected"),
        ("--nope", "unrecognized arguments: --nope"),
        ("--experimental-rerun=x", "not supported"),
        ("-m --cfg=job", "give only one of these flags"),
        ("foo/bar=1", "there is no such config group"),
        ("foo@bar=1", "there is no such config group"),
        ("~foo", "~foo: there is no foo to delete"),
        ("~trainer.max_epoch", "did you mean 'max_epochs'?"),
        ("trainer.plugins.7._target_=x", "list index out of range"),
        ("gate={dark_images:off}", "choose one with gate=NAME"),
        ("gate.dark_images=off", "below data.gate"),
    ],
)
def test_a_wrong_argument_is_one_short_message(argument: str, expected: str) -> None:
    message = refusal(*argument.split())
    assert expected in message
    assert len(message) < 1000


def test_a6_the_home_folder_is_expanded_in_every_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    config = compose_one(
        "data=jsonl",
        "data.root='~/set'",
        "data.store=~/store",
        "data.quarantine=~/rows.jsonl",
        "run.root='~/runs'",
        "model.weights=~/weights.pth",
        "distillation=checkpoint",
        "distillation.run=~/runs/one",
        "logger.tensorboard.sub_dir=~/logs",
        "run.remote=~/copies",
    )
    paths = {
        str(config.run.root),
        *[config.data[key] for key in ("root", "store", "quarantine")],
        config.model["weights"],
        (config.distillation or {})["run"],
        (config.logger["tensorboard"] or {})["sub_dir"],
        str(config.run.remote),
    }
    assert len(paths) == 8
    assert all(path.startswith("/home/me/") for path in paths)


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        (
            "scheduler={_target_: torch.optim.lr_scheduler.StepLR, step_size: 2}",
            {
                "_target_": "torch.optim.lr_scheduler.StepLR",
                "step_size": 2,
                "_partial_": True,
            },
        ),
        (
            "optimizer={_target_: torch.optim.SGD, lr: 0.1}",
            {"_target_": "torch.optim.SGD", "lr": 0.1, "_partial_": True},
        ),
        ("loss={_target_: cls_models.FocalLoss}", {"_target_": "cls_models.FocalLoss"}),
        ("logger={}", {}),
    ],
)
def test_d1_a_mapping_replaces_the_node_of_a_group(argument: str, expected: dict[str, Any]) -> None:
    group, _, _ = argument.partition("=")
    assert compose_one(argument).model_dump()[group] == expected


def test_d1_a_mapping_without_a_target_is_merged() -> None:
    callbacks = compose_one("callbacks={ema: null}").callbacks
    assert callbacks["ema"] is None
    assert callbacks["best_and_last"] is not None


@pytest.mark.parametrize("plus", ["", "+", "++"])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.batch_size", 32),
        ("trainer.precision", "bf16-mixed"),
        ("model.dropout", 0.5),
        ("augmentation.color.brightness", 0.1),
        ("optimizer.weight_decay", 0.5),
        ("stages.reject.precision", 0.9),
        ("callbacks.ema.decay", 0.5),
        ("seed", 5),
    ],
)
@pytest.mark.parametrize("choice", [(), ("trainer=gpu",), ("experiment=small_images",)])
def test_d10_every_argument_is_set_with_or_without_a_plus(
    plus: str, key: str, value: Any, choice: tuple[str, ...]
) -> None:
    if choice == ("experiment=small_images",):
        choice = (*choice, "data.root=x", "augmentation.color={}")
    node: Any = compose_one(*choice, f"{plus}{key}={value}").model_dump()
    for name in key.split("."):
        node = node[name]
    assert node == value


@pytest.mark.parametrize(
    ("argument", "near"),
    [
        ("model=resnet19", "resnet18"),
        ("augmentation=lihgt", "light"),
        ("callbacks=[default,lr_findr]", "lr_finder"),
        ("experiment=jersey_number", "jersey_numbers"),
        ("gate=strct", "strict"),
        ("experimnt=small_images", "experiment"),
        ("gat=strict", "gate"),
        ("debg=tiny", "debug"),
    ],
)
def test_d11_a_misspelled_group_or_choice_names_the_nearest(argument: str, near: str) -> None:
    message = refusal(argument)
    assert f"did you mean '{near}'?" in message
    assert "\n" not in message


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_d13_help_lists_usage_examples_groups_and_exit_codes(flag: str) -> None:
    code = (
        "import sys; from pathlib import Path; from cls_train.main import main; "
        f"sys.argv = ['apps/train', 'seed=1', '{flag}']; main(Path(r'{CONF}')); "
        "print(*sys.modules, file=sys.stderr)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    groups = [group.name for group in CONF.iterdir() if group.is_dir() and group.name != "launch"]
    for group in groups:
        assert f"\n  {group} " in result.stdout
    for text in ("usage: apps/train", "examples:", "docs/training.md", "Exit codes: 0 success"):
        assert text in result.stdout
    assert {"hydra", "torch", "pydantic"}.isdisjoint(result.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--cfg", "job", "model.dropout=0.1"], "dropout: 0.1"),
        (["--cfg", "job", "--package", "model"], "name: resnet18"),
        (["--cfg", "job", "--resolve"], "seed: 1"),
        (["--info", "searchpath", "model.dropout=0.1"], "Config search path"),
        (["--cfg", "hydra"], "hydra:"),
    ],
)
def test_information_flags_print_without_running(arguments: list[str], expected: str) -> None:
    command = [sys.executable, str(REPOSITORY / "apps/train"), *arguments]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    assert expected in result.stdout


def test_a_sweep_over_a_number_is_composed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from hydra._internal.hydra import Hydra

    calls = []
    original = Hydra.compose_config

    def counted(self: Hydra, *args: Any, **kwargs: Any) -> Any:
        calls.append(kwargs["overrides"])
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Hydra, "compose_config", counted)
    command = parse_command_line(["-m", "seed=range(1,21)"])
    configs = [config for config, _ in compose_configs(command, Composer(CONF, command))]
    assert [config.seed for config in configs] == list(range(1, 21))
    assert calls == [[]]


@pytest.mark.slow
def test_check_builds_everything_and_makes_no_run_folder(
    run_app: Any, data_root: Path, tmp_path: Path
) -> None:
    settings = ["data=jsonl", f"data.root={data_root}", "preprocessing.size=[32,32]"]
    code, message = run_app("--check", *settings)
    assert code == 0, message
    assert not (tmp_path / "runs").exists()
    code, message = run_app("--check", *settings, "optimizer.lr=-1")
    assert code == 2
    assert "Invalid learning rate: -1" in message


@pytest.mark.slow
def test_an_error_of_one_run_ends_the_sweep_and_names_the_run(
    run_app: Any, data_root: Path, tmp_path: Path
) -> None:
    settings = ["data=jsonl", f"data.root={data_root}", "preprocessing.size=[32,32]"]
    short = ["trainer.max_epochs=1", "stages.evaluate=false", "callbacks=none"]
    code, message = run_app("-m", *settings, *short, "optimizer.lr=0.01,-1,0.02")
    assert code == 2
    assert "optimizer.lr=-1" in message
    assert "Invalid learning rate: -1" in message
    runs = list((tmp_path / "runs").iterdir())
    assert len(runs) == 1
    assert json.loads((runs[0] / "summary.json").read_bytes())["run"] == runs[0].name


def test_flags_of_the_configuration_are_repeated_for_processes_of_each_device() -> None:
    command = parse_command_line(["seed=1", "--config-dir", "mine", "-cn", "other", "--check"])
    flags = command.config_flags
    again = parse_command_line([*flags, *command.overrides])
    assert again == parse_command_line(["--config-dir=mine", "--config-name=other", "seed=1"])
