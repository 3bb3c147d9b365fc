"""Estimate whether `torch.compile` shortens a training run."""

from dataclasses import dataclass

import torch

_MIN_CPU_IMAGE_SIZE = 128
"""Shorter image side in pixels. Compilation gained nothing below it on 2 CPU cores."""


@dataclass(frozen=True, slots=True)
class CompileCost:
    """Seconds of both compilations (training and evaluation mode), and the speedup of a step."""

    seconds: float
    speedup: float


COMPILE_COSTS = {"cpu": CompileCost(180.0, 1.1), "cuda": CompileCost(60.0, 1.2)}
"""Assumed costs by device type. The seconds are those of a ResNet-18 on 2 cores and typical for
CUDA; the speedups are cautious guesses."""


@dataclass(frozen=True, slots=True)
class CompileDecision:
    """Whether to compile, and the reason as one sentence for the log."""

    should_compile: bool
    reason: str


def decide_compilation(
    device: torch.device | str, image_size: int, steps: int, step_seconds: float
) -> CompileDecision:
    """Compare the time that compilation takes with `steps * step_seconds * (1 - 1 / speedup)`.

    Args:
        device: The training device.
        image_size: Shorter side of the model input in pixels.
        steps: Remaining training steps.
        step_seconds: Duration of one eager step, such as `StepTimer.seconds`.
    """
    device_type = torch.device(device).type
    if device_type not in COMPILE_COSTS:
        reason = f"not compiling: the gain on {device_type} is unknown"
        return CompileDecision(False, reason)
    if device_type == "cpu" and image_size < _MIN_CPU_IMAGE_SIZE:
        reason = (
            f"not compiling: images of {image_size} px are below {_MIN_CPU_IMAGE_SIZE} px, "
            "where compilation gains nothing on a CPU"
        )
        return CompileDecision(False, reason)

    cost = COMPILE_COSTS[device_type]
    saved_share = 1 - 1 / cost.speedup
    saved = steps * step_seconds * saved_share
    should_compile = saved > cost.seconds
    decision = "compiling" if should_compile else "not compiling"
    reason = (
        f"{decision}: it takes about {cost.seconds:.0f} s and saves about {saved:.0f} s over "
        f"{steps:,} steps of {step_seconds:.3g} s (assumed speedup {cost.speedup:.2f})"
    )
    return CompileDecision(should_compile, reason)
