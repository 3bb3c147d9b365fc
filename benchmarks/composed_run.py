"""Build the objects of a run from command line overrides, for benchmarks that train in-process."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra import compose, initialize_config_dir
from lightning.pytorch import Callback, Trainer

from cls_data import ClassificationDataModule
from cls_models import ClassificationModule
from cls_train.builders import (
    build_callbacks,
    build_data,
    build_module,
    build_preprocessing,
    build_trainer,
    optimize_for_device,
)
from cls_train.composition.config import RunConfig
from cls_train.composition.resolve_preprocessing import resolve_preprocessing

CONF = Path(__file__).resolve().parent.parent / "conf"


@dataclass(frozen=True)
class ComposedRun:
    """A trainer, a module, and data that are ready to fit."""

    trainer: Trainer
    module: ClassificationModule
    data: ClassificationDataModule
    callbacks: list[Callback]

    def fit(self) -> None:
        """Train."""
        self.trainer.fit(self.module, datamodule=self.data)


def compose_run(
    overrides: Sequence[str], folder: Path, *, extra_callbacks: Sequence[Callback] = ()
) -> ComposedRun:
    """Compose and build a run as the app does.

    Args:
        overrides: Hydra overrides.
        folder: The run folder.
        extra_callbacks: Callbacks in addition to the configured ones.
    """
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose("config", [*overrides, f"run.root={folder.parent}"])
    config = resolve_preprocessing(RunConfig.from_hydra(composed))
    callbacks = [*build_callbacks(config).all, *extra_callbacks]
    trainer = build_trainer(config, folder, callbacks)
    data = build_data(config, build_preprocessing(config))
    data.prepare_data()
    data.setup()
    module = build_module(config, data)
    optimize_for_device(module, trainer)
    return ComposedRun(trainer, module, data, callbacks)
