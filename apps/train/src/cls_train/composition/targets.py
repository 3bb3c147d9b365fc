"""Resolve `_target_` values to allowed classes and functions."""

import difflib
import importlib
import inspect
import sys
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any

import cls_models
from cls_export.contract.suggestions import did_you_mean
from cls_train.composition.renames import RENAMED_TARGETS
from cls_train.errors import ConfigError

OWN_PACKAGES = ("cls_data", "cls_models", "cls_callbacks", "cls_export")
LIBRARY_PREFIXES = (
    "lightning.pytorch.Trainer",
    "lightning.pytorch.callbacks.",
    "lightning.pytorch.loggers.",
    "lightning.pytorch.plugins.",
    "lightning.pytorch.profilers.",
    "lightning.pytorch.strategies.",
    "torch.nn.",
    "torch.optim.",
    "torchvision.transforms.v2.",
)
"""Names whose classes a `_target_` may name. Hydra alone would also call os.system."""

LIBRARIES = ("lightning", "torch", "torchvision")

FUNCTIONS = frozenset(f"cls_models.{name}" for name in cls_models.__all__)
"""Functions of this project that a `_target_` may name. Library functions are refused, because
some can write files or run commands."""

REPLACED_CALLBACKS = {
    "BackboneFinetuning": "set transfer=staged, which a resumed run repeats",
    "BaseFinetuning": "set transfer=staged, which a resumed run repeats",
    "BasePredictionWriter": "use cls_callbacks.PredictionsWriter, because the app never predicts",
    "BatchSizeFinder": "set callbacks=batch_size_finder",
    "Callback": "name a subclass",
    "Checkpoint": "use cls_callbacks.BestAndLastCheckpoint",
    "EMAWeightAveraging": "use callbacks.ema, whose weights are evaluated and exported",
    "GradientAccumulationScheduler": "set trainer.accumulate_grad_batches, because a schedule "
    "needs the number of steps",
    "LearningRateFinder": "set callbacks=lr_finder",
    "ModelCheckpoint": "set callbacks.best_and_last, such as its keep_epochs",
    "ModelPruning": "export a pruned network yourself, because its masks would be exported",
    "OnExceptionCheckpoint": "set callbacks.best_and_last.every_minutes",
    "ProgressBar": "use cls_callbacks.EpochProgressBar",
    "SpikeDetection": "use cls_callbacks.TrainingWarnings, because it ends a run with a traceback",
    "StochasticWeightAveraging": "use callbacks.ema, whose weights are evaluated and exported",
    "ThroughputMonitor": "use cls_callbacks.ImageThroughputMonitor",
    "WeightAveraging": "use callbacks.ema, whose weights are evaluated and exported",
}
"""Lightning's callbacks that do not work here, and what to do instead."""

_MIN_SIMILARITY = 0.75
"""Smallest ratio of `difflib` at which a package is suggested."""


def resolve_target(target: Any, path: str, allow_targets: Sequence[str] = ()) -> Any:
    """Return the class or function that a `_target_` names.

    A class must be defined in this project, under `LIBRARY_PREFIXES`, or in an allowed package;
    a function in `cls_models` or in an allowed package.

    Args:
        target: The value of `_target_`.
        path: Its key path, for errors.
        allow_targets: Packages of the user.

    Raises:
        ConfigError: The target is not allowed, does not exist, or was renamed.
    """
    check_target_name(target, path, allow_targets)
    found = find_target(target, path)
    # An allowed module leads to others: cls_data.images.store.hashlib.sha256 belongs to hashlib.
    if not _is_allowed(found, target, allow_targets):
        raise ConfigError(
            f"{path}: name a class that is defined in an allowed package; "
            f"{target!r} is not allowed, because it is {found!r:.200}"
        )
    return found


def check_target_name(target: Any, path: str, allow_targets: Sequence[str] = ()) -> None:
    """Check the name of a target, without importing anything.

    Raises:
        ConfigError: The name is not a text, not allowed, or was renamed.
    """
    if not isinstance(target, str):
        raise ConfigError(f"{path}: expected the dotted name of a class, got {target!r:.200}")
    if target in RENAMED_TARGETS:
        raise ConfigError(f"{path}: {target} was renamed to {RENAMED_TARGETS[target]}")

    packages = [*OWN_PACKAGES, *allow_targets]
    is_listed = target.startswith(LIBRARY_PREFIXES) or _is_inside(target, packages)
    is_dotted = all(name.isidentifier() for name in target.split("."))
    if not is_listed or "._" in target or not is_dotted:
        raise ConfigError(_describe_refusal(target, path, allow_targets))

    _, _, class_name = target.rpartition(".")
    is_callback = target.startswith("lightning.pytorch.callbacks.")
    if is_callback and class_name in REPLACED_CALLBACKS:
        raise ConfigError(
            f"{path}: {REPLACED_CALLBACKS[class_name]}; Lightning's {class_name} is not allowed"
        )


def find_target(target: str, path: str) -> Any:
    """Import the class or function of a checked target.

    Raises:
        ConfigError: A module or a name in it does not exist, or importing it fails.
    """
    names = target.split(".")

    for length in range(len(names) - 1, 0, -1):
        module_name = ".".join(names[:length])
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name and not target.startswith(error.name):
                raise ConfigError(
                    f"{path}: install the package {error.name!r}, which {target} needs"
                ) from error
            continue
        except Exception as error:  # a package of the user may raise anything
            raise ConfigError(
                f"{path}: importing {module_name} failed: {type(error).__name__}: {error}"
            ) from error

        attributes = names[length:]
        return _find_attribute(module, module_name, attributes, path)

    raise ConfigError(f"{path}: {target!r} does not exist: no module {names[0]!r}")


def describe_missing_name(container: str, name: str, valid: Iterable[str]) -> str:
    """Return the message for a name that a module or class does not have."""
    return f"{container} has no {name!r}; {did_you_mean(name, valid)}"


def _find_attribute(found: Any, found_name: str, names: Sequence[str], path: str) -> Any:
    for name in names:
        if not hasattr(found, name):
            message = describe_missing_name(found_name, name, _list_public_names(found))
            raise ConfigError(f"{path}: {message}")
        found = getattr(found, name)
        found_name = f"{found_name}.{name}"
    return found


def _list_public_names(container: Any) -> list[str]:
    """Return `__all__`, or the classes and functions that the package itself defines."""
    if not isinstance(container, ModuleType):
        return [name for name in dir(container) if not name.startswith("_")]
    declared = getattr(container, "__all__", None)
    if declared is not None:
        return list(declared)

    package, _, _ = container.__name__.partition(".")
    names = []
    for name, value in vars(container).items():
        is_defined = inspect.isclass(value) or inspect.isroutine(value)
        home = str(getattr(value, "__module__", ""))
        if is_defined and _is_inside(home, [package]) and not name.startswith("_"):
            names.append(name)
    return names


def _is_allowed(found: Any, target: str, allow_targets: Sequence[str]) -> bool:
    if target in FUNCTIONS:
        return True

    home = str(getattr(found, "__module__", ""))
    is_class = inspect.isclass(found)
    if _is_inside(home, allow_targets):
        return is_class or inspect.isroutine(found)
    if not is_class:
        return False

    is_library_class = _is_inside(home, LIBRARIES) and target.startswith(LIBRARY_PREFIXES)
    return is_library_class or _is_inside(home, OWN_PACKAGES)


def _is_inside(name: str, packages: Sequence[str]) -> bool:
    """Whether a dotted name is one of the packages or lies below one."""
    prefixes = tuple(f"{package}." for package in packages)
    return name in packages or name.startswith(prefixes)


def _describe_refusal(target: str, path: str, allow_targets: Sequence[str]) -> str:
    shown = f"{target!r:.200}"
    near = _find_near_target(target, allow_targets)
    if near is not None:
        return f"{path}: did you mean {near!r:.200}? {shown} is not allowed"

    package, _, rest = target.partition(".")
    is_python = package in sys.stdlib_module_names
    if not package.isidentifier() or not rest or is_python or package in LIBRARIES:
        return (
            f"{path}: name a class of {', '.join(OWN_PACKAGES)}, lightning.pytorch, torch.nn, "
            f"torch.optim, or torchvision.transforms.v2; {shown} is not allowed"
        )
    return f"{path}: to use your own package, set allow_targets=[{package}]; {shown} is not allowed"


def _find_near_target(target: str, allow_targets: Sequence[str]) -> str | None:
    """Return the target with its package replaced by the allowed one that is spelled most alike."""
    parts = target.split(".")
    best, best_ratio = None, _MIN_SIMILARITY
    for allowed in (*OWN_PACKAGES, *allow_targets, *LIBRARY_PREFIXES):
        prefix = allowed.rstrip(".")
        length = prefix.count(".") + 1
        given = ".".join(parts[:length])
        if given == prefix or len(parts) < length:
            continue
        ratio = difflib.SequenceMatcher(None, given, prefix).ratio()
        if ratio > best_ratio:
            best, best_ratio = ".".join([prefix, *parts[length:]]), ratio
    return best
