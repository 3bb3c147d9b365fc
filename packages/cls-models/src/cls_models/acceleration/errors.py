"""Errors about devices and batch sizes."""


class HardwareError(ValueError):
    """The device or the batch cannot run a setting. The message says what to set instead."""
