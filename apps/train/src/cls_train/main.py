"""The training command: compose and check every run, then run them one after another."""

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from cls_export.contract.arguments import describe_version
from cls_train.boundary import explained_errors, run_app_command
from cls_train.distributed.devices import uses_processes
from cls_train.distributed.environment import (
    ProcessRank,
    is_first_of_machine,
    prepare_rank,
    read_process_rank,
    reported_once,
)
from cls_train.errors import ConfigError, RunFailedError
from cls_train.help_page import format_help
from cls_train.process import (
    immediate_exit_on_signals,
    import_torchmetrics,
    paused_garbage_collection,
    treat_sigusr1_as_sigterm,
)
from cls_train.stages import evaluation_process

if TYPE_CHECKING:
    from cls_train.composition.arguments import CommandLine
    from cls_train.composition.compose import ComposedRun, Composer
    from cls_train.composition.config import RunConfig

COMMAND = "apps/train"


def main(config_dir: Path) -> int:
    """Run the command line with the configuration in `config_dir`, and return the exit code."""
    arguments = sys.argv[1:]
    treat_sigusr1_as_sigterm()
    try:
        return run_app_command(COMMAND, lambda: _run_command_line(arguments, config_dir))
    finally:
        evaluation_process.stop()


def compose_configs(
    command: "CommandLine", composer: "Composer"
) -> "list[tuple[RunConfig, ComposedRun]]":
    """Compose and check every run of a command line, without importing PyTorch.

    Raises:
        ConfigError: The message names the argument or the key.
    """
    from cls_train.composition.check_settings import check_settings
    from cls_train.composition.config import RunConfig
    from cls_train.distributed.devices import check_batch_size_keys

    choices = {group: composer.list_choices(group) for group in composer.list_groups()}
    runs = composer.compose_runs(command.overrides, multirun=command.multirun)

    configs = []
    for run in runs:
        try:
            config = RunConfig.from_hydra(run.settings, groups=choices)
            check_settings(config, choices)
            check_batch_size_keys(run.overrides)
        except ConfigError as error:
            prefix = _describe_run(run) if len(runs) > 1 else ""
            raise ConfigError(f"{prefix}{error}") from error
        configs.append((config, run))
    return configs


def _run_command_line(arguments: Sequence[str], config_dir: Path) -> int:
    if "--help" in arguments or "-h" in arguments:
        if is_first_of_machine():
            print(format_help(config_dir))
        return 0
    if "--version" in arguments:
        if is_first_of_machine():
            print(describe_version("cls-train"))
        return 0
    from cls_train.composition.arguments import parse_command_line

    with reported_once():
        command = parse_command_line(arguments)
        if command.cfg is not None or command.asks_hydra:
            return _print_information(command, arguments, config_dir)
        configs = _compose_and_check(command, config_dir)
        process = read_process_rank()
        if process is not None:
            prepare_rank()
            _check_one_run(configs)

    for config, run in configs:
        prefix = _describe_run(run) if len(configs) > 1 else ""
        with reported_once():
            num_processes = process.world_size if process else _choose_num_processes(config)
        if command.check:
            _check(config, prefix, num_processes)
        elif num_processes > 1 and process is None:
            code = _launch(config_dir, command, run, prefix, num_processes)
            if code != 0:
                if prefix:
                    print(f"apps/train: {prefix}see the message above", file=sys.stderr)
                return code
        else:
            _run(config, prefix, process)
    if command.check and is_first_of_machine():
        print("the configuration is valid")
    return 0


def _print_information(command: "CommandLine", arguments: Sequence[str], config_dir: Path) -> int:
    from cls_train.composition.information import print_information

    if not is_first_of_machine():
        return 0
    return print_information(command, arguments, config_dir)


def _compose_and_check(
    command: "CommandLine", config_dir: Path
) -> "list[tuple[RunConfig, ComposedRun]]":
    from cls_train.composition.check_settings import check_data_root, has_remote_data
    from cls_train.composition.compose import Composer

    configs = compose_configs(command, Composer(config_dir, command))
    fetched = []
    for config, run in configs:
        check_data_root(config)
        if has_remote_data(config):
            from cls_train.remote_data import fetch_remote_data

            config = fetch_remote_data(config)
        fetched.append((config, run))
    return fetched


def _check_one_run(configs: "Sequence[tuple[RunConfig, ComposedRun]]") -> None:
    if len(configs) > 1:
        raise ConfigError(
            f"torchrun and srun start one run, and this sweep has {len(configs)}; start it without "
            "them: the app starts one process for each of trainer.devices"
        )


def _choose_num_processes(config: "RunConfig") -> int:
    """Return the number of processes that this one starts; 1 to train in this one."""
    if not uses_processes(config.trainer):
        return 1
    if config.trainer.get("num_nodes", 1) > 1:
        raise ConfigError(
            f"trainer.num_nodes={config.trainer['num_nodes']}: start the processes of several "
            "machines with torchrun or srun; see docs/clusters.md"
        )
    from cls_train.distributed.launch import choose_num_processes

    with immediate_exit_on_signals():
        import torch  # noqa: F401
    return choose_num_processes(config.trainer)


def _launch(
    config_dir: Path,
    command: "CommandLine",
    run: "ComposedRun",
    prefix: str,
    num_processes: int,
) -> int:
    from cls_train.distributed.launch import launch_app

    arguments = [*command.config_flags, *run.overrides]
    try:
        return launch_app(config_dir, arguments, num_processes)
    except RunFailedError as error:
        raise RunFailedError(f"{prefix}{error}") from error


def _check(config: "RunConfig", prefix: str, num_processes: int) -> None:
    """Check a run, once on each machine."""
    if not is_first_of_machine():
        return
    with immediate_exit_on_signals():
        from cls_train.logs import configure_logging
        from cls_train.stages.fit import check

    with explained_errors(prefix):
        configure_logging()
        check(config, num_processes)


def _run(config: "RunConfig", prefix: str, process: ProcessRank | None) -> None:
    is_alone = process is None or process.world_size == 1
    if is_alone and config.stages.evaluate and evaluation_process.is_short(config.trainer):
        evaluation_process.start()
    is_imported = "torch" in sys.modules  # by a test, or by the first run of a sweep
    with (
        immediate_exit_on_signals(),
        nullcontext() if is_imported else paused_garbage_collection(),
    ):
        import_torchmetrics()
        from cls_train.run import run

    if process is None:
        with explained_errors(prefix):
            run(config)
    else:
        from cls_train.distributed.rank_process import run_as_rank

        run_as_rank(process, config, run)


def _describe_run(run: "ComposedRun") -> str:
    return f"the run {' '.join(run.overrides)}: "
