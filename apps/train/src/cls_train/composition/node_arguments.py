"""Check the arguments of a node against the parameters of its target."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from cls_export.contract.suggestions import did_you_mean
from cls_train.composition.annotations import find_problems
from cls_train.composition.renames import (
    describe_renamed_key,
    find_renamed_key,
    find_renamed_parameter,
    find_renamed_value,
    find_replacement,
)
from cls_train.composition.signatures import Parameter, Signature

TARGET = "_target_"

_HYDRA_KEYS: dict[str, tuple[Any, ...]] = {
    "_partial_": (True, False),
    "_recursive_": (True, False),
    "_convert_": ("none", "partial", "object", "all"),
}
"""Other keys with which Hydra builds a node, and their values."""

_APP_ARGUMENTS = {
    "distillation": ("backbone", "classes", "mean", "std", "num_classes"),
    "loss": ("class_counts", "weight"),
    "model": ("num_classes", "image_size", "classes"),
    "optimizer": ("params",),
    "scheduler": ("optimizer", "total_steps"),
    "trainer": ("callbacks", "logger", "default_root_dir"),
}
"""Arguments that the app supplies, by node. They are not suggested, and not required."""

_LOGGER_ARGUMENTS = ("save_dir",)

_MAY_BE_SET = frozenset({"model.num_classes", "loss.weight"})
"""Arguments that the app supplies or checks, and that a node may set nevertheless."""

_RESOLVED_LATER = {
    "preprocessing": ("auto", "weights"),
    "trainer.precision": None,
}
"""Values that the app replaces before it builds a node; None for any value."""


def suggest_argument(path: str, valid: Iterable[str]) -> str:
    """Return a hint for an unknown argument: the nearest valid name."""
    _, _, name = path.rpartition(".")
    return did_you_mean(name, valid)


def find_argument_problems(
    node: Mapping[Any, Any],
    path: str,
    name: str,
    signature: Signature,
    suggest: Callable[[str, Iterable[str]], str] = suggest_argument,
) -> list[str]:
    """Return one message for each argument that the target of a node does not take.

    Args:
        node: A mapping with a `_target_`.
        path: Its key path.
        name: Name of the class or function, without its package.
        signature: Its parameters.
        suggest: Returns a hint for an unknown key path, from the valid names in its place.
    """
    problems = []
    for key in node:
        if key != TARGET:
            problems += _find_problems(node, f"{path}.{key}", name, signature, suggest)
    return problems or _find_missing(node, path, signature)


def _find_problems(
    node: Mapping[Any, Any],
    key_path: str,
    name: str,
    signature: Signature,
    suggest: Callable[[str, Iterable[str]], str],
) -> list[str]:
    path, _, key = key_path.rpartition(".")
    value = node.get(key)
    if key in _HYDRA_KEYS:
        allowed = _HYDRA_KEYS[key]
        is_valid = any(
            value is each or (value == each and isinstance(value, str)) for each in allowed
        )
        expected = " or ".join(str(each).lower() for each in allowed)
        return [] if is_valid else [f"{key_path}: expected {expected}, got {value!r:.200}"]

    target = str(node[TARGET])
    new_value = find_renamed_value(target, key, value)
    if new_value is not None:
        return [f"{key_path}: {value!r} was renamed to {new_value!r}"]
    if key in list_app_arguments(path) and key_path not in _MAY_BE_SET:
        return [f"{key_path}: the app sets this argument; remove it"]

    parameter = signature.parameters.get(key)
    if parameter is not None:
        return _find_type_problems(value, parameter, key_path, signature)
    if signature.accepts_any:
        return []

    new_key = find_renamed_key(key_path)
    if new_key is not None:
        return [describe_renamed_key(key_path, new_key)]
    new_name = find_renamed_parameter(target, key)
    if new_name is not None:
        return [describe_renamed_key(key_path, f"{path}.{new_name}")]
    replacement = find_replacement(target, key)
    if replacement is not None:
        return [f"{key_path} was replaced by {replacement}; see docs/runs.md"]
    valid = signature.parameters.keys() - set(list_app_arguments(path))
    return [f"{key_path}: {name} takes no {key!r}; {suggest(key_path, valid)}"]


def _find_type_problems(
    value: Any, parameter: Parameter, path: str, signature: Signature
) -> list[str]:
    if value is None and parameter.allows_none:
        return []
    group, _, _ = path.partition(".")
    replaced = _RESOLVED_LATER.get(path, _RESOLVED_LATER.get(group, ()))
    if replaced is None or (isinstance(value, str) and value in replaced):
        return []
    if _contains_target(value):
        return []  # the nested node is checked by itself

    problems = []
    for problem in find_problems(value, parameter.annotation, path):
        key, _, _ = problem.partition(":")
        new_key = find_renamed_key(key)
        problems.append(problem if new_key is None else describe_renamed_key(key, new_key))
    return problems


def _find_missing(node: Mapping[Any, Any], path: str, signature: Signature) -> list[str]:
    supplied = list_app_arguments(path)
    is_partial = node.get("_partial_") is True
    problems = []
    for index, (name, parameter) in enumerate(signature.parameters.items()):
        is_first = is_partial and index == 0
        if parameter.is_required and name not in node and name not in supplied and not is_first:
            problems.append(f"{path}.{name} is required; set it with {path}.{name}=VALUE")
    return problems


def list_app_arguments(path: str) -> tuple[str, ...]:
    """Return the arguments that the app supplies to the node at a key path."""
    if path.startswith("logger.") and path.count(".") == 1:
        return _LOGGER_ARGUMENTS
    return _APP_ARGUMENTS.get(path, ())


def _contains_target(value: Any) -> bool:
    if isinstance(value, dict):
        return TARGET in value or any(_contains_target(item) for item in value.values())
    if isinstance(value, list):
        return any(_contains_target(item) for item in value)
    return False
