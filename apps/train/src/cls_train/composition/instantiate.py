"""Check and build nodes: mappings with a `_target_` and its arguments."""

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from pydantic import ValidationError

from cls_train.composition.config import Node
from cls_train.composition.node_arguments import TARGET, find_argument_problems
from cls_train.composition.renames import describe_renamed_key, find_renamed_key
from cls_train.composition.signatures import inspect_signature
from cls_train.composition.targets import find_target, resolve_target
from cls_train.composition.value_errors import describe_value_error
from cls_train.errors import ConfigError

T = TypeVar("T")


def check_node(node: Any, path: str, allow_targets: Sequence[str] = ()) -> None:
    """Check a node and the nodes nested in it, without building anything.

    Args:
        node: A mapping, a list, or a plain value.
        path: Its key path, for errors.
        allow_targets: Packages of the user whose classes and functions may be named.

    Raises:
        ConfigError: A `_target_` is not allowed, does not exist, or takes no such argument or
            value.
    """
    if isinstance(node, list):
        for index, item in enumerate(node):
            check_node(item, f"{path}.{index}", allow_targets)
        return
    if not isinstance(node, dict):
        return

    if TARGET in node:
        target_path = f"{path}.{TARGET}"
        target = resolve_target(node[TARGET], target_path, allow_targets)
        signature = inspect_signature(target)
        problems = find_argument_problems(node, path, target.__name__, signature)
        if problems:
            raise ConfigError("\n".join(problems))
    for key, item in node.items():
        check_node(item, f"{path}.{key}", allow_targets)


def accepts(node: Node, argument: str) -> bool:
    """Whether the target of a checked node has this argument, or accepts any."""
    if TARGET not in node:
        return False

    target = find_target(node[TARGET], TARGET)
    signature = inspect_signature(target)
    return signature.accepts_any or argument in signature.parameters


def build(node: Node, path: str, expected: type[T], **runtime: Any) -> T:
    """Build a checked node.

    Args:
        node: Holds a `_target_`.
        path: Key path of the node, for errors.
        expected: Class of the result.
        runtime: Arguments that the app supplies; the node must not set them.

    Raises:
        ConfigError: There is no `_target_`, the target refused its arguments, or the result is of
            another class.
    """
    built = _instantiate(node, path, runtime)

    if not isinstance(built, expected):
        raise ConfigError(
            f"{path}: {node[TARGET]} builds {type(built).__name__}, expected {expected.__name__}"
        )
    return built


def build_partial(node: Node, path: str) -> Callable[..., Any]:
    """Build a node with `_partial_: true`, to be called with the missing arguments later.

    Raises:
        ConfigError: There is no `_target_` or no `_partial_: true`.
    """
    if TARGET in node and node.get("_partial_") is not True:
        raise ConfigError(
            f"{path}: set {path}._partial_=true, because the app supplies the first arguments"
        )
    return cast("Callable[..., Any]", _instantiate(node, path, {}))


def _instantiate(node: Node, path: str, runtime: dict[str, Any]) -> Any:
    if TARGET not in node:
        is_group = "." not in path
        remedy = f"choose one with {path}=NAME" if is_group else f"set {path}._target_=CLASS"
        raise ConfigError(f"{path}: missing _target_, got {node}; {remedy}")

    clash = sorted(node.keys() & runtime.keys())
    if clash:
        raise ConfigError(f"{path}.{clash[0]}: the app sets this argument; remove it")

    try:
        return instantiate(node, _convert_="all", **runtime)
    except InstantiationException as error:
        cause = error.__cause__
        nested = re.search(r"full_key: (\S+)", str(error))
        full_path = f"{path}.{nested[1]}" if nested else path

        if isinstance(cause, ValidationError):
            lines = [_describe_error(item, full_path) for item in cause.errors()]
            raise ConfigError("\n".join(lines)) from error
        raise ConfigError(f"{full_path}: {cause or error}") from error


def _describe_error(item: Any, path: str) -> str:
    names = map(str, item["loc"])
    key = ".".join([path, *names])

    new_key = find_renamed_key(key)
    if new_key is not None:
        return describe_renamed_key(key, new_key)
    return describe_value_error(item, key)
