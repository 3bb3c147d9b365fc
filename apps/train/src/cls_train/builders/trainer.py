"""Build the trainers of a run: one for training, one for the evaluation of its weights."""

import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.plugins import Precision
from lightning.pytorch.profilers import (
    AdvancedProfiler,
    Profiler,
    PyTorchProfiler,
    SimpleProfiler,
)
from loguru import logger

from cls_callbacks import AtomicCheckpointIO
from cls_models import (
    ClassificationModule,
    HardwareError,
    check_precision,
    prepare_for_device,
)
from cls_models.acceleration.precision_timing import measure_slowdown
from cls_train.builders.loggers import build_loggers
from cls_train.builders.step_overhead import NoProfiler, skip_empty_hooks
from cls_train.composition.config import Node, RunConfig
from cls_train.composition.instantiate import build
from cls_train.distributed.devices import uses_processes
from cls_train.distributed.environment import ProcessRank
from cls_train.distributed.strategy import AveragedGradients
from cls_train.errors import ConfigError

EVALUATION_FLAGS = (
    "_target_",
    "accelerator",
    "benchmark",
    "deterministic",
    "enable_progress_bar",
    "inference_mode",
)
"""Arguments of the trainer that also hold for the evaluation. The others, such as limits of
batches, concern training only."""

MIN_SLOWDOWN = 1.1
"""A precision that makes a step this many times as long gets a warning."""

PROFILERS: dict[str, type[AdvancedProfiler | PyTorchProfiler | SimpleProfiler]] = {
    "advanced": AdvancedProfiler,
    "pytorch": PyTorchProfiler,
    "simple": SimpleProfiler,
}


def build_trainer(
    config: RunConfig,
    folder: Path,
    callbacks: list[Callback],
    process: ProcessRank | None = None,
) -> Trainer:
    """Build the trainer of a run folder, with the configured loggers.

    Args:
        config: The run.
        folder: Its folder.
        callbacks: Its callbacks.
        process: Which of several processes this is; None for a run on one device.

    Raises:
        ConfigError: The device does not exist, the precision is unknown, or the plugins do not
            save checkpoints atomically.
    """
    node = dict(config.trainer)
    precision = node.pop("precision", None)
    plugins = _build_plugins(node.pop("plugins", None))
    profiler = _build_profiler(node.pop("profiler", None), folder)
    device = _find_device(node)
    _check_sync_batchnorm(config.trainer, device)
    if process is None or process.world_size == 1:
        strategy: dict[str, Any] = _use_one_device(node)
        plugins += _choose_environment(plugins)
    else:
        strategy = _use_all_ranks(node, process, has_frozen_layers=config.transfer is not None)
        plugins.append(TorchElasticEnvironment())

    return _build(
        node,
        **strategy,
        precision=_check_precision(precision, device),
        plugins=plugins,
        profiler=profiler,
        callbacks=callbacks,
        logger=build_loggers(config.logger, folder),
        default_root_dir=str(folder),
    )


def build_evaluation_trainer(config: RunConfig, folder: Path, callbacks: list[Callback]) -> Trainer:
    """Build a trainer that evaluates every image, on one device, in float32, without loggers.

    Raises:
        ConfigError: The device does not exist.
    """
    node = {key: value for key, value in config.trainer.items() if key in EVALUATION_FLAGS}
    return _build(
        node,
        devices=1,
        precision="32-true",
        plugins=[LightningEnvironment()],  # also inside a SLURM job of several tasks
        callbacks=callbacks,
        logger=[],
        enable_model_summary=False,
        default_root_dir=str(folder),
    )


def optimize_for_device(module: ClassificationModule, trainer: Trainer) -> None:
    """Prepare the network for the device.

    Weights stay the same; outputs change only by rounding.
    """
    device = trainer.strategy.root_device
    precision = check_precision(trainer.precision, device)

    if precision != "32-true":
        logger.info("precision: {}", precision)

    for note in prepare_for_device(module.backbone, device, precision):
        logger.debug("{}", note)


def warn_about_slow_precision(
    module: ClassificationModule, trainer: Trainer, image_size: tuple[int, int]
) -> None:
    """Warn if training on a CPU is slower than in float32, with the measured factor.

    Args:
        module: Prepared for its device.
        trainer: Its trainer.
        image_size: Height and width in pixels.
    """
    device = trainer.strategy.root_device
    precision = check_precision(trainer.precision, device)
    if device.type != "cpu" or precision == "32-true":
        return

    slowdown = measure_slowdown(module.backbone, image_size, precision)
    if slowdown > MIN_SLOWDOWN:
        logger.warning(
            "trainer.precision={}: a step of this network takes {:.1f} times as long as in "
            "float32 on this CPU; set trainer.precision=32-true",
            precision,
            slowdown,
        )


def _build(node: Node, **runtime: Any) -> Trainer:
    skip_empty_hooks(runtime["callbacks"])
    try:
        trainer: Trainer = build(node, "trainer", Trainer, **runtime)
    except ConfigError as error:
        # Lightning's message does not name the argument. All others were checked.
        if isinstance(runtime.get("devices"), list):
            raise ConfigError(str(error).replace("trainer:", "trainer.devices:", 1)) from error
        raise
    _take_over_signals(trainer)
    return trainer


def _take_over_signals(trainer: Trainer) -> None:
    """Leave signals to the app and to `PreemptionCheckpoint`.

    Lightning's handler of SIGTERM starts a collective operation, which hangs if another rank has
    not received the signal, and its handler of SIGUSR1 requeues SLURM jobs. With several devices,
    it also asks the first rank for a signal before each batch, and waits for its GPU to answer, so
    the host cannot prepare the next step meanwhile (lightning 2.6.6, its issue 21487).
    """
    connector: Any = trainer._signal_connector
    connector.register_signal_handlers = lambda: None
    epoch_loop: Any = trainer.fit_loop.epoch_loop
    epoch_loop._broadcast_sigterm_tensor = lambda: None


def _use_one_device(node: Node) -> dict[str, Any]:
    """Return the arguments of a run in one process, and remove those of several processes."""
    node.pop("strategy", None)
    node.pop("sync_batchnorm", None)
    node.pop("num_nodes", None)
    devices = node.pop("devices", 1)
    is_index = isinstance(devices, list) and len(devices) == 1
    return {"devices": devices if is_index else 1}


def _use_all_ranks(node: Node, process: ProcessRank, *, has_frozen_layers: bool) -> dict[str, Any]:
    """Return the arguments of one of several processes."""
    node.pop("strategy", None)
    devices = node.pop("devices", None)
    if not isinstance(devices, list):
        devices = process.local_world_size
    node["num_nodes"] = process.num_nodes
    strategy = AveragedGradients(has_frozen_layers=has_frozen_layers)
    return {"devices": devices, "strategy": strategy}


def _check_sync_batchnorm(flags: Node, device: torch.device) -> None:
    """Refuse synchronized batch normalization if `accelerator: auto` means the CPU."""
    if flags.get("sync_batchnorm") and uses_processes(flags) and device.type == "cpu":
        raise ConfigError(
            "trainer.sync_batchnorm: PyTorch synchronizes batch normalization on GPUs only, and "
            "sees none; remove it, or check nvidia-smi and CUDA_VISIBLE_DEVICES"
        )


def _find_device(node: Node) -> torch.device:
    """Return the device of an accelerator, which may be `auto`."""
    # Only building a trainer resolves it.
    accelerator = node.get("accelerator", "auto")
    is_gpu = accelerator in ("cuda", "gpu")
    if is_gpu and not (torch.cuda.is_available() or torch.backends.mps.is_available()):
        raise ConfigError(
            "trainer.accelerator: PyTorch sees no GPU; set trainer.accelerator=cpu, or check "
            "nvidia-smi and CUDA_VISIBLE_DEVICES"
        )
    plugins: Any = [LightningEnvironment()]
    try:
        trainer = Trainer(accelerator=accelerator, devices=1, plugins=plugins, logger=False)
    except Exception as error:  # Lightning and torch raise many kinds of errors
        raise ConfigError(f"trainer.accelerator: {error}") from error
    return trainer.strategy.root_device


def _check_precision(precision: Any, device: torch.device) -> str:
    try:
        return check_precision("32-true" if precision is None else precision, device)
    except HardwareError as error:
        raise ConfigError(f"trainer.precision: {error}") from error


def _build_plugins(nodes: list[Node] | None) -> list[Any]:
    plugins = []
    for index, node in enumerate(nodes or []):
        plugins.append(build(node, f"trainer.plugins.{index}", object))

    if any(isinstance(each, Precision) for each in plugins):
        raise ConfigError("trainer.plugins: a plugin sets the precision; set trainer.precision")
    if not any(isinstance(each, AtomicCheckpointIO) for each in plugins):
        raise ConfigError(
            "trainer.plugins: expected one cls_callbacks.AtomicCheckpointIO, without which a "
            "killed run could leave half a checkpoint"
        )
    return plugins


def _choose_environment(plugins: list[Any]) -> list[ClusterEnvironment]:
    """Name the environment if Lightning would warn about an `srun` that is not used."""
    if shutil.which("srun") is None:
        return []
    if any(isinstance(each, ClusterEnvironment) for each in plugins):
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PossibleUserWarning)
        is_slurm = SLURMEnvironment.detect()
    if is_slurm or TorchElasticEnvironment.detect():
        return []
    return [LightningEnvironment()]


def _build_profiler(setting: str | Node | None, folder: Path) -> Profiler:
    """Build a profiler that writes to the run folder; Lightning would log to a hidden level."""
    if setting is None:
        return NoProfiler()
    if isinstance(setting, dict):
        return build(setting, "trainer.profiler", Profiler)  # type: ignore[type-abstract]
    return PROFILERS[setting](dirpath=folder, filename="profile")
