import subprocess
import sys

import pytest
import torchvision
from torchvision.models import list_models

import cls_models


def test_all_lists_exactly_the_lazy_names() -> None:
    assert sorted(cls_models.__all__) == sorted(cls_models._MODULES)


@pytest.mark.parametrize("name", cls_models.__all__)
def test_every_public_name_resolves(name: str) -> None:
    value = getattr(cls_models, name)
    assert name.isupper() or value.__module__ == f"cls_models.{cls_models._MODULES[name]}"


def test_an_unknown_name_raises_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = cls_models.Nothing


def test_backbones_are_torchvisions_classifiers() -> None:
    assert list(cls_models.BACKBONES) == list_models(module=torchvision.models)


def test_names_for_early_checks_load_no_pytorch() -> None:
    code = "import sys, cls_models; cls_models.BACKBONES, cls_models.VALIDATION_METRICS"
    result = subprocess.run(
        [sys.executable, "-c", f"{code}; print(*sys.modules)"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert set(result.stdout.split()).isdisjoint({"torch", "torchvision"})
