"""Signatures that are read from source files equal those of the imported objects."""

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cls_train.composition.annotations import find_problems
from cls_train.composition.signatures import inspect_signature, read_signature
from cls_train.composition.source_modules import MissingNameError, find_definition
from cls_train.composition.targets import find_target

CONF = Path(__file__).resolve().parents[3] / "conf"

LIBRARY_MODULES = (
    "lightning.pytorch.callbacks",
    "lightning.pytorch.loggers",
    "lightning.pytorch.plugins",
    "lightning.pytorch.profilers",
    "lightning.pytorch.strategies",
    "torch.nn",
    "torch.optim",
    "torch.optim.lr_scheduler",
    "torchvision.transforms.v2",
    "cls_callbacks",
    "cls_data",
    "cls_export",
    "cls_models",
)


def find_conf_targets() -> set[str]:
    targets = set()
    for path in CONF.glob("*/*.yaml"):
        targets |= set(iterate_targets(yaml.safe_load(path.read_text())))
    return targets


def iterate_targets(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "_target_":
                yield value
            yield from iterate_targets(value)


@pytest.mark.parametrize("target", sorted(find_conf_targets()))
def test_every_target_of_conf_is_read_from_its_source(target: str) -> None:
    definition = find_definition(target)
    assert definition is not None
    signature = read_signature(definition)
    assert signature is not None
    assert_equal_names(target, signature, find_target(target, "target"))


@pytest.mark.parametrize("module_name", LIBRARY_MODULES)
def test_what_is_read_of_a_library_equals_the_imported_signature(module_name: str) -> None:
    module = importlib.import_module(module_name)
    num_read = 0
    for name in dir(module):
        value = getattr(module, name)
        package, _, _ = module_name.partition(".")
        is_own = inspect.isclass(value) and value.__module__.startswith(f"{package}.")
        if name.startswith("_") or not is_own or "_graveyard" in value.__module__:
            continue  # Lightning's graveyard holds removed classes
        definition = find_definition(f"{module_name}.{name}")
        signature = None if definition is None else read_signature(definition)
        if signature is not None:
            num_read += 1
            assert_equal_names(name, signature, value)
    assert num_read > 0


def assert_equal_names(name: str, read: Any, value: Any) -> None:
    exact = inspect_signature(value)
    assert read.accepts_any == exact.accepts_any, name
    if not read.accepts_any:
        assert list(read.parameters) == list(exact.parameters), name
    for key, parameter in exact.parameters.items():
        if key in read.parameters and not read.is_model:
            assert read.parameters[key].is_required == parameter.is_required, (name, key)


@pytest.mark.parametrize("target", sorted(find_conf_targets()))
def test_defaults_fit_the_annotations_that_are_read(target: str) -> None:
    definition = find_definition(target)
    assert definition is not None
    signature = read_signature(definition)
    assert signature is not None
    exact = inspect.signature(find_target(target, "target"))
    for name, parameter in signature.parameters.items():
        default = exact.parameters[name].default
        if isinstance(default, (int, float, str, bool)):
            assert find_problems(default, parameter.annotation, name) == []


@pytest.mark.parametrize(
    ("target", "container"),
    [
        ("torch.optim.Adamm", "torch.optim"),
        ("cls_callbacks.EMAA", "cls_callbacks"),
        ("lightning.pytorch.callbacks.EarlyStoping", "lightning.pytorch.callbacks"),
        ("torch.nn.CrosEntropyLoss", "torch.nn"),
    ],
)
def test_a_name_that_does_not_exist_is_missing(target: str, container: str) -> None:
    with pytest.raises(MissingNameError) as caught:
        find_definition(target)
    assert caught.value.container == container
    assert len(caught.value.valid) > 5


@pytest.mark.parametrize("target", ["no_such_package.X", "torch.load", "os.path.join.x", "x"])
def test_what_cannot_be_read_is_unknown(target: str) -> None:
    try:
        definition = find_definition(target)
    except MissingNameError:
        pytest.fail("expected unknown, not missing")
    assert definition is None or read_signature(definition) is not None
