"""Training precision of a device."""

from typing import Literal, get_args

import torch

from cls_export.contract.suggestions import did_you_mean
from cls_models.acceleration.errors import HardwareError

Precision = Literal["32-true", "16-mixed", "bf16-mixed"]

_PRECISIONS: tuple[Precision, ...] = get_args(Precision)
_SHORT_NAMES = {"32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}


def choose_precision(device: torch.device | str) -> Precision:
    """Return the fastest precision that trains reliably on a device.

    CUDA devices of compute capability 8.0 and higher get bf16-mixed, whose range needs no loss
    scaling. Capability 7.0 to 7.5 (V100, T4) gets 16-mixed, because those tensor cores support
    float16 only. Older GPUs and all other devices get 32-true.

    A CPU gets 32-true: without AMX, bf16 ran at 0.76 times the speed of float32. With AMX, bf16
    may be faster (not measured); pass `bf16-mixed` explicitly to use it.
    """
    device = torch.device(device)
    if device.type != "cuda":
        return "32-true"
    capability = torch.cuda.get_device_capability(device)
    if capability >= (8, 0):
        return "bf16-mixed"
    return "16-mixed" if capability >= (7, 0) else "32-true"


def check_precision(precision: str | int, device: torch.device | str) -> Precision:
    """Resolve `auto` and short names such as `32`, and check that the device can train with them.

    Lightning replaces float16 on a CPU with bf16 and only warns about it.

    Raises:
        HardwareError: The precision is unknown, or it is float16 on a CPU.
    """
    device = torch.device(device)
    name = str(precision)
    if name == "auto":
        return choose_precision(device)

    name = _SHORT_NAMES.get(name, name)
    resolved = next((choice for choice in _PRECISIONS if choice == name), None)
    if resolved is None:
        hint = did_you_mean(name, ["auto", *_PRECISIONS])
        raise HardwareError(f"unknown precision {precision!r}; {hint}")

    if resolved == "16-mixed" and device.type == "cpu":
        raise HardwareError(
            f"precision {precision} is not supported: a CPU cannot train in float16. "
            "Use auto or 32-true, or bf16-mixed on a CPU with AMX"
        )
    return resolved
