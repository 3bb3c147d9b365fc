"""The data gate: checks a dataset before training."""

from cls_data.gate.check import CheckReport, check
from cls_data.gate.config import GateConfig

__all__ = ["CheckReport", "GateConfig", "check"]
