"""The services that run jobs, one module each."""

import importlib
from typing import Any

from cls_launch.targets.target import Target

TARGETS = {
    "kubernetes": "KubernetesTarget",
    "local": "LocalTarget",
    "skypilot": "SkyPilotTarget",
    "slurm": "SlurmTarget",
    "vertex": "VertexTarget",
}
"""Module in this folder, which is also the file in conf/launch → class."""


def import_target(name: str) -> type[Target[Any]]:
    """Return the class of a target."""
    module = importlib.import_module(f"cls_launch.targets.{name}")
    target: type[Target[Any]] = getattr(module, TARGETS[name])
    return target
