import importlib
import json
import pkgutil
import subprocess
import sys

import pytest

import cls_data

HEAVY = {"torch", "lightning", "matplotlib", "scipy", "torchvision"}


def loaded_modules(*imports: str) -> set[str]:
    """Return the modules that a new process has loaded after some imports."""
    code = f"import sys, {', '.join(imports)}; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    return set(result.stdout.split())


def test_all_lists_the_public_names_in_order() -> None:
    assert cls_data.__all__ == sorted([*cls_data._MODULES, "evaluation_mode"])


@pytest.mark.parametrize("name", sorted(cls_data._MODULES))
def test_public_name_resolves_to_its_module(name: str) -> None:
    module = importlib.import_module(f"cls_data.{cls_data._MODULES[name]}")
    value = getattr(cls_data, name)
    assert value is getattr(module, name)


def test_no_module_hides_a_lazy_public_name() -> None:
    modules = {module.name for module in pkgutil.iter_modules(cls_data.__path__)}
    assert modules.isdisjoint(cls_data._MODULES)
    importlib.import_module("cls_data.evaluation_mode")
    assert callable(cls_data.evaluation_mode)


def test_unknown_name_raises_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = cls_data.Nothing


@pytest.mark.parametrize("module", ["config", "errors", "evaluation", "predictions", "gate"])
def test_importing_a_module_without_tensors_does_not_load_torch(module: str) -> None:
    assert loaded_modules(f"cls_data.{module}").isdisjoint(HEAVY)


def test_dir_lists_public_names_without_importing_them() -> None:
    code = "import json, sys, cls_data; print(json.dumps([dir(cls_data), list(sys.modules)]))"
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    names, modules = json.loads(result.stdout)
    assert set(cls_data.__all__) <= set(names)
    assert HEAVY.isdisjoint(modules)
