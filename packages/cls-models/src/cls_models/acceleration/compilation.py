"""`torch.compile` for a training that is long enough to earn it back."""

import logging
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from cls_models.acceleration.hardware import StepClock, compile_in_place, decide_compilation

_log = logging.getLogger(__name__)

_TIMED = 20
"""Steps, of which the first warms up, that are timed before the decision."""


class Compilation(Callback):
    """Compiles the backbone in `fit`, if that pays, and reports what it took.

    A resumed run decides anew, by the steps that are left. Compiled and plain steps differ by rounding, so that a run
    which is interrupted and resumed is then no longer the same to the last bit.

    Args:
        when: `auto` after timing some steps, if the time saved in those to come exceeds that of compiling; `always`
            after the same steps, whatever it saves.
    """

    def __init__(self, when: Literal["auto", "always"] = "auto") -> None:
        if when not in ("auto", "always"):
            raise ValueError(f"when must be 'auto' or 'always', got {when!r}")
        self.when = when
        self.seconds: float | None = None
        """What compiling took: how much longer the first compiled step was than the median of those that followed."""
        self._clock = StepClock()
        self._steps = 0
        self._compiled = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._clock, self._steps, self._compiled, self.seconds = StepClock(), 0, False, None
        self._clock.tick()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count a step; after some, decide; after some more, report."""
        if self._steps > 2 * _TIMED:
            return
        self._clock.tick()
        self._steps += 1
        if self._steps == _TIMED:
            self._decide(trainer, pl_module, min(batch["images"].shape[2:]))
        elif self._steps == 2 * _TIMED and self._compiled:
            self.seconds = self._clock.first_step_overhead
            _log.info(
                "compiling took %.0f s; a step takes %.3g s now", self.seconds, self._clock.seconds
            )

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do not count a validation as a step."""
        self._clock.pause()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on counting."""
        self._clock.tick()

    def _decide(self, trainer: Trainer, pl_module: LightningModule, side: int) -> None:
        left = int(trainer.estimated_stepping_batches) - trainer.global_step
        left *= trainer.accumulate_grad_batches  # a batch is what is timed
        assert self._clock.seconds is not None
        decision = decide_compilation(pl_module.device, side, left, self._clock.seconds)
        _log.info("%s", decision.reason if self.when == "auto" else "compiled, as asked")
        self._compiled = decision.compile or self.when == "always"
        if self._compiled:
            backbone = pl_module.backbone
            assert isinstance(backbone, nn.Module)
            compile_in_place(backbone, pl_module.device)
        self._clock = StepClock()
        self._clock.tick()
