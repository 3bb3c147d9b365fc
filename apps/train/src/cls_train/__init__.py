"""Thin Hydra app: compose, validate, build, fit, then evaluate and export in a clean process."""

from cls_train.composition.config import RunConfig
from cls_train.errors import ConfigError
from cls_train.main import main

__all__ = ["ConfigError", "RunConfig", "main"]
