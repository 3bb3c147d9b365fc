"""What pays on which device: precision, memory format, compilation; and the batch that batch norm cannot take."""

import difflib
import statistics
import time
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from cls_models.acceleration.small_conv import replace_small_convs

Precision = Literal["32-true", "16-mixed", "bf16-mixed"]

PRECISIONS: tuple[Precision, ...] = ("32-true", "16-mixed", "bf16-mixed")

_CPU_COMPILE_PAYS_FROM = 128
"""Pixels of an image's shorter side; on 2 cores compilation gained nothing below."""


class HardwareError(ValueError):
    """A setting that this device or this batch cannot take. The message says what to set instead."""


def precision_for(device: torch.device | str) -> Precision:
    """Choose the fastest precision that trains well, which is what `auto` means.

    CUDA from compute capability 8.0: bf16-mixed, whose range needs no loss scaling. 7.0 to 7.5 (V100, T4) have tensor
    cores for float16 alone: 16-mixed. Older ones, and all other devices: 32-true.

    A CPU is never given bf16 by itself: without AMX it ran at 0.76 times the speed of float32. With AMX it may pay,
    which was not measured here; `bf16-mixed` can be asked for by name there.
    """
    device = torch.device(device)
    if device.type != "cuda":
        return "32-true"
    return _precision_of_capability(torch.cuda.get_device_capability(device))


def _precision_of_capability(capability: tuple[int, int]) -> Precision:
    if capability >= (8, 0):
        return "bf16-mixed"
    return "16-mixed" if capability >= (7, 0) else "32-true"


def check_precision(precision: str | int, device: torch.device | str) -> Precision:
    """Return the precision to train with, `auto` and `32` resolved.

    Lightning would turn float16 on a CPU into bf16 with no more than a warning.

    Raises:
        HardwareError: an unknown precision, or float16 on a CPU.
    """
    device = torch.device(device)
    known = {"auto": precision_for(device), "32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}
    named = known.get(str(precision), str(precision))
    for choice in PRECISIONS:
        if choice == named:
            if choice == "16-mixed" and device.type == "cpu":
                raise HardwareError(
                    f"precision {precision} was asked for on a CPU, which does not train in float16; "
                    "set it to auto or 32-true, or to bf16-mixed on a CPU with AMX"
                )
            return choice
    names = ("auto", *PRECISIONS)
    nearest = difflib.get_close_matches(named, names, n=1, cutoff=0.0)[0]
    raise HardwareError(
        f"unknown precision {precision!r}; did you mean {nearest!r}? Known are {', '.join(names)}"
    )


def channels_last_pays(device: torch.device | str, precision: Precision = "32-true") -> bool:
    """Say whether convolutions run faster on channels-last tensors (`torch.channels_last`, NHWC in memory).

    On a CPU: with the products of small maps and the optimizer's steps in memory order, which both want it so, 1.4-2.0x
    for a ResNet-18 at 48 x 32 to 64 x 64 px (`benchmarks/training.py layouts`); 1.12-1.19x by itself from 128 px. On
    CUDA with mixed precision: tensor cores work on NHWC, and cuDNN would otherwise transpose (NVIDIA, "Convolutional
    Layers User's Guide"). Elsewhere no gain is known.

    Args:
        device: that trains.
        precision: as resolved by `check_precision`.
    """
    kind = torch.device(device).type
    return kind == "cpu" or (kind == "cuda" and precision != "32-true")


def prepare_for_device(
    backbone: nn.Module, device: torch.device | str, precision: Precision = "32-true"
) -> list[str]:
    """Lay out weights, and write out convolutions of small maps, as the device computes them fastest.

    Parameters, state_dict keys and, but for rounding, answers stay. Returns a sentence on each thing that was done.
    """
    done = []
    if channels_last_pays(device, precision):
        backbone.to(memory_format=torch.channels_last)
        done.append("weights lie channels-last")
    if torch.device(device).type == "cpu" and (found := replace_small_convs(backbone)):
        done.append(
            f"{found} convolutions train as matrix products wherever their map is small enough"
        )
    return done


@dataclass(frozen=True, slots=True)
class CompileCost:
    """What compiling a backbone costs and gains.

    Attributes:
        seconds: time of the compilation, the one for evaluation included.
        speedup: time of an eager step over that of a compiled one, over 1 where it gains.
    """

    seconds: float
    speedup: float


COMPILE_COSTS = {"cpu": CompileCost(180.0, 1.1), "cuda": CompileCost(60.0, 1.2)}
"""Assumed where nothing was measured: the seconds are of a ResNet-18 on 2 cores, and usual for CUDA; the speed-ups are
cautious guesses."""


@dataclass(frozen=True, slots=True)
class CompileDecision:
    """Whether to compile, and the reason in one sentence for the log."""

    compile: bool
    reason: str


def decide_compilation(
    device: torch.device | str,
    image_size: int,
    steps: int,
    step_seconds: float,
    cost: CompileCost | None = None,
) -> CompileDecision:
    """Compare what compilation saves over a whole training with what it costs.

    It saves `steps * step_seconds * (1 - 1 / speedup)` seconds.

    Args:
        device: that trains.
        image_size: shorter side of the model's input, in pixels.
        steps: optimizer steps that are still to come.
        step_seconds: time of one step without compilation, such as `StepClock.seconds`.
        cost: as measured; None for what is assumed of the device.
    """
    kind = torch.device(device).type
    source = "measured" if cost else "assumed"
    cost = cost or COMPILE_COSTS.get(kind)
    if cost is None:
        return CompileDecision(
            False, f"not compiled: nothing is known of what that gains on {kind}"
        )
    if kind == "cpu" and image_size < _CPU_COMPILE_PAYS_FROM and source == "assumed":
        return CompileDecision(
            False,
            f"not compiled: on a CPU that gains nothing below {_CPU_COMPILE_PAYS_FROM} px; images have {image_size}",
        )
    saved = steps * step_seconds * (1 - 1 / cost.speedup)
    figures = (
        f"it takes about {cost.seconds:.0f} s and saves about {saved:.0f} s over {steps:,} steps of "
        f"{step_seconds:.3g} s ({source} speed-up {cost.speedup:.2f})"
    )
    pays = saved > cost.seconds
    return CompileDecision(pays, f"{'compiled' if pays else 'not compiled'}: {figures}")


def compile_in_place(module: nn.Module, device: torch.device | str) -> None:
    """Let `torch.compile` take over the module's forward; its class, parameters and state_dict keys stay.

    Compilation itself happens at the first call, and again at the first in evaluation mode. A small function is
    compiled here first (seconds), so that a missing compiler is known before the first step.

    Raises:
        HardwareError: this machine has no working compiler.
    """
    device = torch.device(device)
    try:
        torch.compile(_probe)(torch.zeros(2, device=device))
    except Exception as error:  # inductor, triton and the compilers share no class of errors
        needed = (
            "Triton and a C compiler"
            if device.type == "cuda"
            else "a C++ compiler (g++, or the one named by CXX)"
        )
        first_line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise HardwareError(
            f"torch.compile does not work on this machine ({first_line}): on {device.type} it needs {needed}; "
            "install that, or train without compilation"
        ) from error
    keys = list(module.state_dict())
    module.compile()
    assert list(module.state_dict()) == keys, "torch.compile renamed the module's tensors"


def _probe(x: Tensor) -> Tensor:
    return x.sin() + 1


class StepClock:
    """Times steps, of which the first may compile.

    Call `tick` once after every step, and once before the first. On a GPU the host runs ahead of the device, but no
    further than the queue is long, so that a median over many steps holds there as well.
    """

    def __init__(self) -> None:
        self._laps: list[float] = []
        self._latest: float | None = None

    def tick(self) -> None:
        """Note the time."""
        now = time.perf_counter()
        if self._latest is not None:
            self._laps.append(now - self._latest)
        self._latest = now

    def pause(self) -> None:
        """Forget the time of the latest tick, so that a validation does not count as a step."""
        self._latest = None

    @property
    def seconds(self) -> float | None:
        """Median time of the steps after the first, in seconds; None before the third tick."""
        return statistics.median(self._laps[1:]) if len(self._laps) > 1 else None

    @property
    def first_step_overhead(self) -> float | None:
        """How much longer the first step took: the time of compilation in seconds, if it compiled."""
        return None if self.seconds is None else self._laps[0] - self.seconds


class DeviceClock:
    """Times steps on a device that the host runs ahead of, such as a GPU, to which a step may be one launch.

    Call `tick` once after every step, and `pause` before anything else is to be done. Where a time begins and ends it
    waits for the device: twice an epoch. The first step after a pause is not counted.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._seconds = 0.0
        self._steps = 0
        self._since: float | None = None
        self._since_then = 0

    def tick(self) -> None:
        """Count a step."""
        if self._since is None:
            self._since, self._since_then = self._now(), 0
        else:
            self._since_then += 1

    def pause(self) -> None:
        """Stop until the next tick."""
        if self._since is not None and self._since_then:
            self._seconds += self._now() - self._since
            self._steps += self._since_then
        self._since = None

    @property
    def seconds(self) -> float | None:
        """Mean time of a step up to the latest pause, in seconds; None before any was counted."""
        return self._seconds / self._steps if self._steps else None

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def check_batch_size_for_batch_norm(
    module: nn.Module, rows: int, batch_size: int, image_size: tuple[int, int]
) -> None:
    """Check that no batch norm will be asked to train on one value per channel, which has no variance.

    Training drops a last batch that is not full unless it is the only one, so a batch of one comes about with
    `batch_size` 1 or a split of one row. It is harmful only where a feature map is 1 x 1 by then.

    Args:
        module: maps float32 [B, 3, H, W] to logits. Its mode stays as it was, and batch norms that stay in evaluation
            mode in training, being frozen, do not count.
        rows: of the training split.
        batch_size: as configured.
        image_size: H and W.

    Raises:
        HardwareError: names the first layer that would fail.
    """
    if min(rows, batch_size) > 1:
        return
    if alone := _layers_with_one_value(module, image_size):
        raise HardwareError(
            f"batches of one image (batch_size {batch_size}, {rows} rows): the batch norm {alone[0]} would see one "
            f"value per channel at {image_size[0]} x {image_size[1]} px and cannot normalize it. Use a batch_size and "
            "a training split of 2 or more, larger images, or frozen batch norms"
        )


def _layers_with_one_value(module: nn.Module, image_size: tuple[int, int]) -> list[str]:
    modes = {part: part.training for part in module.modules()}
    training = {part for part in module.train().modules() if part.training}
    device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
    alone: list[str] = []
    handles = [
        part.register_forward_pre_hook(
            lambda _, inputs, name=name: (
                alone.append(name) if inputs[0].numel() == inputs[0].shape[1] else None
            )
        )
        for name, part in module.named_modules()
        if isinstance(part, _BatchNorm) and part in training
    ]
    try:
        with torch.no_grad():
            module.eval()(
                torch.zeros(1, 3, *image_size, device=device)
            )  # in evaluation no statistics move
    finally:
        for handle in handles:
            handle.remove()
        for part, mode in modes.items():
            part.training = mode
    return alone
