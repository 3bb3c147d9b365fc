"""Names of torchvision's classifiers, read without importing PyTorch.

A misspelled `model.name` is reported before PyTorch is loaded, which takes seconds.
"""

import importlib.util
import re
from pathlib import Path

_REGISTRATION = re.compile(r'@register_model\((?:name="(\w+)")?\).*?^def (\w+)', re.M | re.S)


def _list_backbones() -> tuple[str, ...]:
    """Return what `torchvision.models.list_models(module=torchvision.models)` returns."""
    spec = importlib.util.find_spec("torchvision")
    assert spec is not None
    assert spec.origin is not None
    names = []
    for file in (Path(spec.origin).parent / "models").glob("*.py"):
        for given_name, function in _REGISTRATION.findall(file.read_text(encoding="utf-8")):
            names.append(given_name or function)
    return tuple(sorted(names))


BACKBONES: tuple[str, ...] = _list_backbones()
"""Names of torchvision's classifiers."""
