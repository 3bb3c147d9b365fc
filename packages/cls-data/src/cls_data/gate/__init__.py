"""The data gate: what is wrong with a data set, found before a run is spent on it."""

from cls_data.gate.check import CheckReport, check
from cls_data.gate.config import GateConfig

__all__ = ["CheckReport", "GateConfig", "check"]
