"""Nodes: which classes a configuration may name, and whether their arguments exist."""

import importlib
import inspect
import re
from collections.abc import Callable
from typing import Any, TypeVar, cast

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from pydantic import ValidationError

import cls_models
from cls_export.contract.suggestions import did_you_mean
from cls_train.composition.config import Node
from cls_train.errors import ConfigError

T = TypeVar("T")

OWN = ("cls_data.", "cls_models.", "cls_callbacks.", "cls_export.")
LIBRARIES = (
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
"""Whose classes a `_target_` may name. Hydra itself would run os.system or shutil.copy as gladly."""

FUNCTIONS = frozenset(f"cls_models.{name}" for name in cls_models.__all__)
"""Functions that a `_target_` may name besides classes; those of libraries read, write and run all sorts of things."""

_TARGET = "_target_"
_HYDRA_KEYS = frozenset({_TARGET, "_partial_", "_convert_", "_recursive_"})


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


def takes(node: Node, argument: str, path: str) -> bool:
    """Whether a node's target has an argument of this name, or takes any."""
    known = parameters(node[_TARGET], path) if _TARGET in node else frozenset()
    return known is None or argument in known


def build(node: Node, path: str, expected: type[T], **runtime: Any) -> T:
    """Build a checked node.

    Args:
        node: holds a `_target_`.
        path: of the node, for errors.
        expected: class of the result.
        runtime: arguments that are known only now; the node may not set them as well.

    Raises:
        ConfigError: no `_target_`, the constructor refused its arguments, or made something else than expected.
    """
    built = _instantiate(node, path, runtime)
    if not isinstance(built, expected):
        raise ConfigError(
            f"{path}: {node[_TARGET]} makes a {type(built).__name__}, expected {expected.__name__}"
        )
    return built


def build_partial(node: Node, path: str) -> Callable[..., Any]:
    """Build a node that says `_partial_: true`: something to be called later with what is still missing.

    Raises:
        ConfigError: no `_target_`, or no `_partial_`.
    """
    if _TARGET in node and node.get("_partial_") is not True:
        raise ConfigError(
            f"{path}: must say _partial_: true, since it is built once the parameters are known"
        )
    return cast("Callable[..., Any]", _instantiate(node, path, {}))


def _instantiate(node: Node, path: str, runtime: dict[str, Any]) -> Any:
    if _TARGET not in node:
        raise ConfigError(
            f"{path}: has no _target_, so nothing can be built from {node}; choose one: {path}=NAME"
        )
    if clash := sorted(node.keys() & runtime.keys()):
        raise ConfigError(f"{path}.{clash[0]}: is supplied by the app; remove it")
    try:
        return instantiate(node, _convert_="all", **runtime)
    except InstantiationException as error:
        cause = error.__cause__
        inner = re.search(r"full_key: (\S+)", str(error))
        full = f"{path}.{inner[1]}" if inner else path
        if isinstance(cause, ValidationError):
            raise ConfigError("\n".join(_explain(item, full) for item in cause.errors())) from error
        raise ConfigError(f"{full}: {cause or error}") from error


def _resolve(target: Any, path: str) -> Any:
    """Find what a target names: a class that was written in an allowed package, or one of the functions."""
    if not isinstance(target, str) or not target.startswith(OWN + LIBRARIES) or "._" in target:
        allowed = ", ".join(OWN + LIBRARIES)
        raise ConfigError(
            f"{path}: {target!r} may not be built; allowed are names that start with {allowed}"
        )
    found = _look_up(target, path)
    # Through an allowed module any other can be reached: cls_data.images.store.hashlib.sha256 is hashlib's.
    home = f"{getattr(found, '__module__', '')}."
    written_there = home.startswith(OWN) or (
        home.startswith(("lightning.", "torch.", "torchvision.")) and target.startswith(LIBRARIES)
    )
    if not (target in FUNCTIONS or (inspect.isclass(found) and written_there)):
        raise ConfigError(
            f"{path}: {target!r} may not be built: it is no class of an allowed package ({found!r})"
        )
    return found


def _look_up(target: str, path: str) -> Any:
    parts = target.split(".")
    for split in range(len(parts) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:split]))
        except ModuleNotFoundError as error:
            if error.name and not target.startswith(error.name):
                raise ConfigError(
                    f"{path}: {target} needs the package {error.name!r}, which is not there"
                ) from error
            continue
        for number, name in enumerate(parts[split:], start=split):
            if not hasattr(found, name):
                hint = did_you_mean(
                    name, [known for known in dir(found) if not known.startswith("_")]
                )
                raise ConfigError(f"{path}: {'.'.join(parts[:number])} has no {name!r}; {hint}")
            found = getattr(found, name)
        return found
    raise ConfigError(f"{path}: {target!r} does not exist")


def _check_arguments(node: Node, path: str, target: Any) -> None:
    known = parameters(node[_TARGET], path)
    for key in sorted(node.keys() - _HYDRA_KEYS):
        if known is not None and key not in known:
            raise ConfigError(
                f"{path}.{key}: {target.__name__} takes no {key!r}; {did_you_mean(key, known)}"
            )


def _explain(item: Any, path: str) -> str:
    key = ".".join([path, *map(str, item["loc"])])
    return f"{key}: {item['msg']}" + (
        "" if item["type"] == "missing" else f", got {item['input']!r:.200}"
    )
