"""Compare the settings of an interrupted run with those of the command that resumes it.

Settings that change the weights must be equal. The others come from the new command: where the data
lies, how fast it is read, what is logged, and which checkpoints are kept.
"""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cls_train.composition.config import Node, RunConfig
from cls_train.composition.targets import find_target
from cls_train.errors import ConfigError

_FREE_SECTIONS = ("acceleration", "allow_targets", "logger", "run", "stages")

_FREE_KEYS = frozenset(
    {
        # The fingerprint covers rows and images, wherever they lie and however they were made.
        "data.annotations",
        "data.gate",
        "data.layout",
        "data.quarantine",
        "data.root",
        "data.shard_cache",
        "data.shard_cache_gigabytes",
        "data.split",
        "data.store",
        "data.synthetic",
        # Speed and memory. The order of the rows does not depend on them. The number of images per
        # device is recorded as data.batch_size, which is compared.
        "data.batch_size_per_device",
        "data.decode_workers",
        "data.eval_batch_size",
        "data.num_workers",
        "data.persistent_workers",
        "data.predict_split",
        "trainer.accelerator",
        "trainer.benchmark",
        "trainer.devices",
        "trainer.num_nodes",
        "trainer.strategy",
        # What is shown, checked, or recorded.
        "trainer.detect_anomaly",
        "trainer.enable_autolog_hparams",
        "trainer.enable_model_summary",
        "trainer.enable_progress_bar",
        "trainer.log_every_n_steps",
        "trainer.max_time",
        "trainer.num_sanity_val_steps",
        "trainer.profiler",
    }
)

_OBSERVERS = {
    "cls_callbacks": {
        "AugmentedSamplesPlot",
        "ConfusionMatrixPlot",
        "DatasetStatisticsWriter",
        "EpochProgressBar",
        "EpochSummary",
        "FastestBatchSizeFinder",
        "GradCamWriter",
        "GradientNormMonitor",
        "ImageThroughputMonitor",
        "LRFinder",
        "ModelInfoWriter",
        "PredictionsWriter",
        "PreemptionCheckpoint",
        "SamplePredictionsPlot",
        "SamplerDistributionWriter",
        "TrainingHistoryWriter",
        "TrainingWarnings",
    },
    "cls_models": {"CompileCallback", "CudaGraphCallback"},
    "lightning": {
        "DeviceStatsMonitor",
        "LearningRateMonitor",
        "ModelSummary",
        "RichModelSummary",
        "RichProgressBar",
        "TQDMProgressBar",
        "ThroughputMonitor",
        "Timer",
    },
}
"""Callbacks that do not change weights, by package. Any other callback is compared."""

_CHECKPOINT_KEYS = ("monitor", "mode")
"""Parameters of BestAndLastCheckpoint that decide which weights are kept; the others say when."""

_MISSING = object()
_MAX_VALUE_LENGTH = 100


@dataclass(frozen=True, slots=True)
class Difference:
    """A setting that differs.

    Attributes:
        key: Such as `optimizer.lr`.
        before: The recorded value, as text.
        now: The value of the new command, as text.
        reason: Why it matters, if the key does not say it.
    """

    key: str
    before: str
    now: str
    reason: str = ""

    def __str__(self) -> str:
        text = f"{self.key}: {self.before} → {self.now}"
        return f"{text} ({self.reason})" if self.reason else text


def compare_settings(
    recorded: RunConfig, config: RunConfig
) -> tuple[list[Difference], list[Difference]]:
    """Compare two configurations of one run.

    Args:
        recorded: The configuration in the run folder.
        config: That of the new command, checked. A parameter that only one of them sets is compared
            with the default of its class.

    Returns:
        Differences that change the weights, and harmless ones.
    """
    changing: list[Difference] = []
    harmless: list[Difference] = []
    before_settings = recorded.model_dump(mode="json")
    now_settings = config.model_dump(mode="json")
    for key, before, now in _walk(before_settings, now_settings, ""):
        if key == "trainer.max_epochs":
            reason = _find_epoch_limit_reason(config, before, now)
            difference = Difference(key, _format(before), _format(now), reason)
            (changing if reason else harmless).append(difference)
            continue

        difference = Difference(key, _format(before), _format(now))
        is_free = _is_free(key, before_settings, now_settings)
        (harmless if is_free else changing).append(difference)

    return changing, harmless


def _walk(before: Any, now: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    """Yield the key and both values of each setting that differs."""
    if not isinstance(before, dict) or not isinstance(now, dict):
        if before != now:
            yield path, before, now
        return

    same_target = before.get("_target_") == now.get("_target_")
    for name in [*before, *(key for key in now if key not in before)]:
        key = f"{path}.{name}" if path else str(name)
        default = _get_default(now, name) if same_target else _MISSING
        yield from _walk(before.get(name, default), now.get(name, default), key)


def _get_default(node: Node, name: str) -> Any:
    """Return the default of a parameter of a checked node's target."""
    if "_target_" not in node:
        return _MISSING
    try:
        target = find_target(str(node["_target_"]), "")
        parameter = inspect.signature(target).parameters[name]
    except (ConfigError, KeyError, TypeError, ValueError):
        return _MISSING
    default = parameter.default
    is_plain = default is None or isinstance(default, (bool, int, float, str))
    return default if is_plain else _MISSING


def _is_free(key: str, before: dict[str, Any], now: dict[str, Any]) -> bool:
    names = key.split(".")
    if names[0] in _FREE_SECTIONS:
        return True
    if key == "data.shards":  # they may be moved; images in files are shuffled otherwise
        return bool(before["data"].get("shards")) == bool(now["data"].get("shards"))
    if names[0] == "callbacks" and len(names) > 1:
        return _is_free_callback(names, before["callbacks"], now["callbacks"])

    prefixes = {".".join(names[:length]) for length in range(1, len(names) + 1)}
    return not _FREE_KEYS.isdisjoint(prefixes)


def _is_free_callback(names: list[str], before: dict[str, Any], now: dict[str, Any]) -> bool:
    nodes = [settings.get(names[1]) for settings in (before, now)]
    targets = {str(node.get("_target_")) for node in nodes if node}
    if all(_is_observer(target) for target in targets):
        return True

    is_checkpoint = all(target.endswith(".BestAndLastCheckpoint") for target in targets)
    return is_checkpoint and len(names) > 2 and names[2] not in _CHECKPOINT_KEYS


def _is_observer(target: str) -> bool:
    package, _, _ = target.partition(".")
    name = target.rpartition(".")[2]
    return name in _OBSERVERS.get(package, ())


def _find_epoch_limit_reason(config: RunConfig, before: Any, now: Any) -> str:
    """Return why the run cannot go on with another number of epochs; empty if it can."""
    if not isinstance(before, int) or not isinstance(now, int) or now < before:
        return "a run can only be extended"
    if config.data.get("growing_sizes"):
        return "data.growing_sizes depends on it"
    if config.scheduler is None:
        return ""

    schedule = str(config.scheduler.get("_target_"))
    package, _, name = schedule.rpartition(".")
    is_independent = package == "torch.optim.lr_scheduler" and name != "OneCycleLR"
    if is_independent or schedule == "cls_models.plateau":
        return ""
    return f"the schedule {name} depends on it; scheduler=none and scheduler=plateau do not"


def _format(value: Any) -> str:
    if value is _MISSING:
        return "not set"
    if isinstance(value, dict) and "_target_" in value:
        return str(value["_target_"])
    text = repr(value)
    if len(text) > _MAX_VALUE_LENGTH:
        return text[:_MAX_VALUE_LENGTH] + "…"
    return text
