"""Nodes: which classes a configuration may name, and whether their arguments exist."""

import importlib
import inspect
from collections.abc import Collection
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from pydantic import ValidationError

from cls_train.config import Node
from cls_train.errors import ConfigError, did_you_mean

ALLOWED = ("cls_", "lightning.", "torch.nn.", "torch.optim.", "torchmetrics.", "torchvision.")
"""Where a `_target_` may come from. Hydra itself would run os.system or shutil.copy as gladly."""

_TARGET = "_target_"
_HYDRA_KEYS = frozenset({_TARGET, "_partial_", "_convert_", "_recursive_", "_args_"})


def check_node(node: Any, path: str) -> None:
    """Check a node and all that is nested in it, without building anything.

    Raises:
        ConfigError: a `_target_` is not allowed or does not exist, or an argument is unknown to its signature.
    """
    if isinstance(node, list):
        for number, item in enumerate(node):
            check_node(item, f"{path}.{number}")
    elif isinstance(node, dict):
        if _TARGET in node:
            _check_arguments(node, path, _resolve(node[_TARGET], f"{path}.{_TARGET}"))
        for key, item in node.items():
            check_node(item, f"{path}.{key}")


def parameters(target: str, path: str) -> frozenset[str] | None:
    """Return the names of a target's keyword arguments; None where it takes any.

    Raises:
        ConfigError: the target is not allowed or does not exist.
    """
    signature = inspect.signature(_resolve(target, path))
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.parameters.values()):
        return None
    return frozenset(signature.parameters)


def build(node: Node, path: str, **runtime: Any) -> Any:
    """Build a checked node; `runtime` adds arguments that are known only now.

    Raises:
        ConfigError: the constructor refused its arguments.
    """
    try:
        return instantiate(node, _convert_="all", **runtime)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, ValidationError):
            raise ConfigError("\n".join(_explain(item, path) for item in cause.errors())) from error
        raise ConfigError(f"{path}: {cause or error}") from error


def _resolve(target: Any, path: str) -> Any:
    if not isinstance(target, str) or not target.startswith(ALLOWED):
        raise ConfigError(
            f"{path}: {target!r} may not be built; allowed are names that start with {', '.join(ALLOWED)}"
        )
    parts = target.split(".")
    found: Any = None
    for split in range(len(parts) - 1, 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:split]))
        except ModuleNotFoundError as error:
            if error.name and not target.startswith(error.name):
                raise ConfigError(
                    f"{path}: {target} needs the package {error.name!r}, which is not installed"
                ) from error
            continue
        for number, name in enumerate(parts[split:], start=split):
            if not hasattr(found, name):
                hint = did_you_mean(name, [known for known in dir(found) if not known.startswith("_")])
                raise ConfigError(f"{path}: {'.'.join(parts[:number])} has no {name!r}; {hint}")
            found = getattr(found, name)
        break
    # Through an allowed module any other can be reached: cls_data.store.os.system is os.system.
    origin = getattr(found, "__module__", None)
    if not callable(found) or not isinstance(origin, str) or not f"{origin}.".startswith(ALLOWED):
        raise ConfigError(f"{path}: {target!r} is not a class or function of an allowed package (found {found!r})")
    return found


def _check_arguments(node: Node, path: str, target: Any) -> None:
    known = parameters(node[_TARGET], path)
    given: Collection[str] = node.keys() - _HYDRA_KEYS
    for key in sorted(given):
        if known is not None and key not in known:
            raise ConfigError(f"{path}.{key}: {target.__name__} takes no {key!r}; {did_you_mean(key, known)}")


def _explain(item: Any, path: str) -> str:
    key = ".".join([path, *map(str, item["loc"])])
    return f"{key}: {item['msg']}" + ("" if item["type"] == "missing" else f", got {item['input']!r:.200}")
