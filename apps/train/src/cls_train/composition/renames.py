"""Names of version 0.1 that have changed.

On the command line and in YAML files an old name is an error that gives the new one. In the
config.yaml of an older run it is translated, so that the run can be evaluated, resumed, and used
as a source of weights.
"""

from typing import Any

RENAMED_KEYS = {
    "augmentation.color.grey": "augmentation.color.gray",
    "callbacks.confusion": "callbacks.confusion_matrix",
    "callbacks.early_warnings": "callbacks.training_warnings",
    "callbacks.epoch_log": "callbacks.epoch_summary",
    "callbacks.history": "callbacks.training_history",
    "callbacks.signals": "callbacks.preemption",
    "stages.degrade": "stages.robustness",
}
"""Key paths, from the top of the configuration."""

RENAMED_TARGETS = {
    "cls_callbacks.AugmentedSamples": "cls_callbacks.AugmentedSamplesPlot",
    "cls_callbacks.BatchSizeSuggestion": "cls_callbacks.FastestBatchSizeFinder",
    "cls_callbacks.BestAndLast": "cls_callbacks.BestAndLastCheckpoint",
    "cls_callbacks.ConfusionMatrix": "cls_callbacks.ConfusionMatrixPlot",
    "cls_callbacks.DatasetStatisticsCallback": "cls_callbacks.DatasetStatisticsWriter",
    "cls_callbacks.EarlyWarnings": "cls_callbacks.TrainingWarnings",
    "cls_callbacks.EpochLog": "cls_callbacks.EpochSummary",
    "cls_callbacks.GradCam": "cls_callbacks.GradCamWriter",
    "cls_callbacks.GradientNorm": "cls_callbacks.GradientNormMonitor",
    "cls_callbacks.LearningRateSuggestion": "cls_callbacks.LRFinder",
    "cls_callbacks.ModelInfo": "cls_callbacks.ModelInfoWriter",
    "cls_callbacks.ProgressBar": "cls_callbacks.EpochProgressBar",
    "cls_callbacks.SamplePredictions": "cls_callbacks.SamplePredictionsPlot",
    "cls_callbacks.SamplerDistribution": "cls_callbacks.SamplerDistributionWriter",
    "cls_callbacks.SaveOnSignal": "cls_callbacks.PreemptionCheckpoint",
    "cls_callbacks.Throughput": "cls_callbacks.ImageThroughputMonitor",
    "cls_callbacks.TrainingHistory": "cls_callbacks.TrainingHistoryWriter",
    "cls_data.Blur": "cls_data.GaussianBlur",
    "cls_data.Broadcast": "cls_data.BroadcastDegradation",
    "cls_data.Colour": "cls_data.ColorJitter",
    "cls_data.Erasing": "cls_data.RandomErasing",
    "cls_data.Geometry": "cls_data.GeometricTransform",
    "cls_data.Mixing": "cls_data.MixupCutmix",
    "cls_data.PerSample": "cls_data.TorchvisionAugmentation",
    "cls_data.Recipe": "cls_data.AugmentationPipeline",
    "cls_models.Compilation": "cls_models.CompileCallback",
    "cls_models.CudaGraph": "cls_models.CudaGraphCallback",
    "cls_models.distillation_from_run": "cls_models.build_distillation",
}

RENAMED_PARAMETERS = {
    "cls_callbacks.AugmentedSamplesPlot": {"draws": "augmented_rows", "images": "columns"},
    "cls_callbacks.BestAndLastCheckpoint": {"when_saving_fails": "on_save_error"},
    "cls_callbacks.DatasetStatisticsWriter": {"rows": "max_classes"},
    "cls_callbacks.FastestBatchSizeFinder": {"largest": "max_batch_size"},
    "cls_callbacks.GradCamWriter": {"images": "max_images"},
    "cls_callbacks.TrainingWarnings": {"gap": "max_accuracy_gap", "still": "min_loss_change"},
    "cls_data.AugmentationPipeline": {"colour": "color"},
    "cls_data.BroadcastAugmentation": {"colour": "color"},
    "cls_data.ColorJitter": {"grey": "gray"},
    "cls_data.LightAugmentation": {"colour": "color"},
    "cls_data.PhotoAugmentation": {"colour": "color"},
}
"""Constructor parameters, by the new name of the class."""

REPLACED_PARAMETERS = {
    "cls_callbacks.BestAndLastCheckpoint": {"copy_to": "run.remote"},
}
"""Constructor parameters that a setting elsewhere replaces, by the new name of the class."""

RENAMED_VALUES = {
    "cls_callbacks.BestAndLastCheckpoint": {("on_save_error", "go_on"): "continue"},
}
"""Values of constructor parameters, by the new names of the class and the parameter."""


def find_renamed_key(path: str) -> str | None:
    """Return the new key path if the path, or the start of it, was renamed; else None."""
    for old, new in RENAMED_KEYS.items():
        if path == old or path.startswith(f"{old}."):
            rest = path.removeprefix(old)
            return new + rest
    return None


def find_renamed_parameter(target: str, name: str) -> str | None:
    """Return the new name of a constructor parameter; None if it was not renamed."""
    parameters = RENAMED_PARAMETERS.get(target, {})
    return parameters.get(name)


def find_replacement(target: str, name: str) -> str | None:
    """Return the setting that replaces a constructor parameter; None if none does."""
    parameters = REPLACED_PARAMETERS.get(target, {})
    return parameters.get(name)


def find_renamed_value(target: str, name: str, value: Any) -> str | None:
    """Return the new value of a constructor parameter; None if it was not renamed."""
    if not isinstance(value, str):
        return None
    values = RENAMED_VALUES.get(target, {})
    return values.get((name, value))


def describe_renamed_key(old: str, new: str) -> str:
    """Return the message for an old key path."""
    return f"{old} was renamed to {new}"


def upgrade_settings(settings: Any) -> Any:
    """Return recorded settings with the names of this version, in the same order.

    Args:
        settings: The content of a config.yaml of this or an earlier version.
    """
    return _upgrade(settings, "")


def _upgrade(value: Any, path: str) -> Any:
    if isinstance(value, list):
        return [_upgrade(item, path) for item in value]
    if not isinstance(value, dict):
        return value

    target = value.get("_target_")
    if not isinstance(target, str):
        target = ""
    target = RENAMED_TARGETS.get(target, target)

    upgraded = {}
    for key, item in value.items():
        if find_replacement(target, key) is not None:
            continue
        name = find_renamed_parameter(target, key) or key
        new_path = f"{path}.{name}" if path else str(name)
        new_path = RENAMED_KEYS.get(new_path, new_path)
        _, _, new_name = new_path.rpartition(".")
        upgraded[new_name] = _upgrade_item(target, new_name, item, new_path)

    return upgraded


def _upgrade_item(target: str, name: str, item: Any, path: str) -> Any:
    if name == "_target_":
        return target
    new_value = find_renamed_value(target, name, item)
    return _upgrade(item, path) if new_value is None else new_value
