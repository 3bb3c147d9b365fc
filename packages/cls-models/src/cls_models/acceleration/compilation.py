"""Compile the backbone with `torch.compile` when it shortens the training run."""

import logging
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from cls_models.acceleration.compile_cost import decide_compilation
from cls_models.acceleration.errors import HardwareError
from cls_models.acceleration.step_timers import StepTimer

_log = logging.getLogger(__name__)

_TIMED_STEPS = 20
"""Steps timed before the decision. The first one is warm-up."""


class CompileCallback(Callback):
    """Compile the backbone during `fit` if that saves time, and log how long it took.

    A resumed run decides again, from its remaining steps. Compiled and eager steps differ by
    rounding, so an interrupted and resumed run is then not bit-identical.

    Args:
        when: `auto` compiles if the time saved in the remaining steps exceeds the compilation
            time; `always` compiles after the same number of timed steps in any case.
    """

    def __init__(self, when: Literal["auto", "always"] = "auto") -> None:
        if when not in ("auto", "always"):
            raise ValueError(f"when must be 'auto' or 'always', got {when!r}")
        self.when = when
        self.seconds: float | None = None
        """Compilation time: the first compiled step minus the median of the steps after it."""
        self._timer = StepTimer()
        self._steps = 0
        self._is_compiled = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start timing."""
        self.seconds = None
        self._steps = 0
        self._is_compiled = False
        self._restart_timer()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Time a step; decide after some steps, and report after some more."""
        if self._steps > 2 * _TIMED_STEPS:
            return
        self._timer.tick()
        self._steps += 1
        if self._steps == _TIMED_STEPS:
            self._decide(trainer, pl_module, min(batch["images"].shape[2:]))
        elif self._steps == 2 * _TIMED_STEPS and self._is_compiled:
            self.seconds = self._timer.first_step_overhead
            message = "compilation took %.0f s; a step now takes %.3g s"
            _log.info(message, self.seconds, self._timer.seconds)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Pause timing."""
        self._timer.pause()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Continue timing."""
        self._timer.tick()

    def _decide(self, trainer: Trainer, pl_module: LightningModule, image_size: int) -> None:
        remaining = int(trainer.estimated_stepping_batches) - trainer.global_step
        remaining *= trainer.accumulate_grad_batches  # the timer counts batches
        assert self._timer.seconds is not None
        decision = decide_compilation(pl_module.device, image_size, remaining, self._timer.seconds)
        _log.info("%s", decision.reason if self.when == "auto" else "compiling: when='always'")

        self._is_compiled = decision.should_compile or self.when == "always"
        if self._is_compiled:
            backbone = pl_module.backbone
            assert isinstance(backbone, nn.Module)
            compile_in_place(backbone, pl_module.device)
        self._restart_timer()

    def _restart_timer(self) -> None:
        self._timer = StepTimer()
        self._timer.tick()


def compile_in_place(module: nn.Module, device: torch.device | str) -> None:
    """Compile a module's forward; its class, parameters, and state_dict keys stay the same.

    The module itself compiles at its first call, and again at the first call in evaluation mode.
    A small function is compiled here (seconds) to detect a missing compiler before the first step.

    Raises:
        HardwareError: This machine has no working compiler.
    """
    device = torch.device(device)
    try:
        torch.compile(_compiler_test)(torch.zeros(2, device=device))
    except Exception as error:  # inductor, Triton, and C++ compilers share no exception type
        if device.type == "cuda":
            needed = "Triton and a C compiler"
        else:
            needed = "a C++ compiler (g++, or the one named by CXX)"
        first_line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise HardwareError(
            f"torch.compile does not work on this machine ({first_line}). On {device.type} it "
            f"needs {needed}; install it, or train without compilation"
        ) from error
    keys = list(module.state_dict())
    module.compile()
    assert list(module.state_dict()) == keys, "torch.compile renamed the module's tensors"


def _compiler_test(x: Tensor) -> Tensor:
    return x.sin() + 1
