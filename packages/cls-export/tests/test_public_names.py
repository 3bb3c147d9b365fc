import os
import pkgutil
import subprocess
import sys

import pytest

import cls_export
import cls_export.contract


def loaded_modules(*imports: str) -> set[str]:
    """Return the modules that a new process has loaded after some imports."""
    code = f"import sys, {', '.join(imports)}; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    return set(result.stdout.split())


def test_all_lists_the_lazy_names_in_order() -> None:
    assert cls_export.__all__ == sorted(cls_export._MODULES)


@pytest.mark.parametrize("name", cls_export.__all__)
def test_public_name_resolves(name: str) -> None:
    value = getattr(cls_export, name)
    assert value.__name__ == name
    assert value.__module__ == f"cls_export.{cls_export._MODULES[name]}"


def test_unknown_name_raises_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = cls_export.Nothing


def test_importing_contract_loads_neither_onnxruntime_nor_torch() -> None:
    names = [module.name for module in pkgutil.iter_modules(cls_export.contract.__path__)]
    assert "preprocessing" in names
    modules = loaded_modules(*[f"cls_export.contract.{name}" for name in names])
    assert modules.isdisjoint({"onnxruntime", "onnx", "torch"})


def test_importing_package_and_command_does_not_load_torch_or_onnx() -> None:
    modules = loaded_modules("cls_export", "cls_export.cli.main")
    assert modules.isdisjoint({"torch", "onnx", "lightning"})


@pytest.mark.parametrize(("given", "expected"), [(None, "1"), ("0", "0")])
def test_importing_package_turns_off_telemetry_unless_set(given: str | None, expected: str) -> None:
    variables = {**os.environ, "ORT_DISABLE_TELEMETRY": given or ""}
    if given is None:
        del variables["ORT_DISABLE_TELEMETRY"]
    code = "import os, cls_export.contract; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=variables
    )
    assert result.stdout.strip() == expected
