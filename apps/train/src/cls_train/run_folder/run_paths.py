"""Choose the folder of a run, and read and write its files."""

import json
import time
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from cls_export.contract.files import write_atomically
from cls_export.contract.run_layout import RunPaths
from cls_train.composition.config import RunConfig
from cls_train.composition.renames import upgrade_settings
from cls_train.errors import RunError


def choose_run_paths(config: RunConfig) -> RunPaths:
    """Return the folder with the configured name, or a new name of date, model, and seed.

    Raises:
        RunError: `run.remote` cannot be read.
    """
    if config.run.name is not None:
        return RunPaths(config.run.root / config.run.name)

    model = config.model.get("name", "model")
    now = time.strftime("%Y%m%d-%H%M%S")
    stem = f"{now}-{model}-seed{config.seed}"
    folder = config.run.root / stem
    number = 2
    while folder.exists() or _is_taken_remotely(config, folder.name):
        folder = config.run.root / f"{stem}-{number}"
        number += 1

    return RunPaths(folder)


def _is_taken_remotely(config: RunConfig, name: str) -> bool:
    if config.run.remote is None:
        return False
    from cls_callbacks import RemoteStorageError, open_remote_folder

    try:
        folder = open_remote_folder(config.run.remote, name)
        folder.check_exists()
        return bool(folder.list_sizes())
    except RemoteStorageError as error:
        raise RunError(str(error)) from error


def read_config(run: RunPaths) -> RunConfig:
    """Read the configuration of a run of this or an earlier version.

    Raises:
        RunError: There is no config.yaml, or it is invalid.
    """
    if not run.config.is_file():
        raise RunError(f"{run.path}: no config.yaml; expected the folder of a run")

    try:
        settings = OmegaConf.to_container(OmegaConf.load(run.config))
        assert isinstance(settings, dict)
        return RunConfig.from_dict(upgrade_settings(settings))
    except Exception as error:  # a damaged file raises many kinds of errors
        raise RunError(f"{run.config} is damaged, or was edited: {error}") from error


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file atomically."""
    text = json.dumps(content, ensure_ascii=False, indent=2) + "\n"
    write_atomically(path, text.encode())
