"""Resolve `_target_` values to allowed classes and functions."""

import importlib
import inspect
from collections.abc import Sequence
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
    if not isinstance(target, str):
        raise ConfigError(f"{path}: expected the dotted name of a class, got {target!r}")
    if target in RENAMED_TARGETS:
        raise ConfigError(f"{path}: {target} was renamed to {RENAMED_TARGETS[target]}")

    packages = [*OWN_PACKAGES, *allow_targets]
    is_listed = target.startswith(LIBRARY_PREFIXES) or _is_inside(target, packages)
    if not is_listed or "._" in target:
        raise ConfigError(_describe_refusal(target, path))

    found = find_target(target, path)
    # An allowed module leads to others: cls_data.images.store.hashlib.sha256 belongs to hashlib.
    if not _is_allowed(found, target, allow_targets):
        raise ConfigError(
            f"{path}: {target!r} is not allowed, because it is not a class defined in an "
            f"allowed package ({found!r})"
        )
    return found


def find_target(target: str, path: str) -> Any:
    """Import the class or function of a checked target.

    Raises:
        ConfigError: A module or a name in it does not exist; the closest name is suggested.
    """
    names = target.split(".")

    for length in range(len(names) - 1, 0, -1):
        module_name = ".".join(names[:length])
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name and not target.startswith(error.name):
                raise ConfigError(
                    f"{path}: {target} needs the package {error.name!r}, which is not installed"
                ) from error
            continue

        attributes = names[length:]
        return _find_attribute(module, module_name, attributes, path)

    raise ConfigError(f"{path}: {target!r} does not exist: no module {names[0]!r}")


def parameter_names(target: Any) -> frozenset[str] | None:
    """Return the names of the keyword arguments; None if the target accepts any."""
    parameters = inspect.signature(target).parameters
    for parameter in parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            return None
    return frozenset(parameters)


def _find_attribute(found: Any, found_name: str, names: Sequence[str], path: str) -> Any:
    for name in names:
        if not hasattr(found, name):
            public_names = [each for each in dir(found) if not each.startswith("_")]
            hint = did_you_mean(name, public_names)
            raise ConfigError(f"{path}: {found_name} has no {name!r}; {hint}")
        found = getattr(found, name)
        found_name = f"{found_name}.{name}"
    return found


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


def _describe_refusal(target: str, path: str) -> str:
    own = [f"{package}." for package in OWN_PACKAGES]
    allowed = ", ".join([*own, *LIBRARY_PREFIXES])
    first, _, _ = target.partition(".")
    package = first or "PACKAGE"
    return (
        f"{path}: {target!r} is not allowed. Allowed: names that start with {allowed}. "
        f"To allow the classes and functions of your own package, set allow_targets=[{package}]"
    )
