"""The training command: compose the configuration, then run it."""

import os
import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig

from cls_train.composition.command_line import check_command_line
from cls_train.composition.config import RunConfig
from cls_train.console import exit_on_user_error
from cls_train.run import run
from cls_train.stages import evaluation_process


def main(config_dir: Path) -> None:
    """Run the command line with the configuration in `config_dir`."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises errors instead of printing them

    # Hydra's parser accepts -m only before the overrides.
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda argument: argument not in ("-m", "--multirun"))

    @exit_on_user_error
    def compose_and_run() -> None:
        check_command_line(sys.argv[1:], config_dir)
        decorate = hydra.main(version_base="1.3", config_path=str(config_dir), config_name="config")
        decorate(_task)()

    try:
        compose_and_run()
    finally:
        evaluation_process.stop()


def _task(composed: DictConfig) -> None:
    # Errors are handled inside the task, because Hydra would print a line before them.
    exit_on_user_error(lambda: run(RunConfig.from_hydra(composed)))()
