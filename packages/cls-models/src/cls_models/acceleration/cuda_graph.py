"""Train with one launch for the gradients of a step and another for its update.

On a fast GPU, a step of a small network takes as long as the host needs to launch its hundreds of
kernels: a ResNet-18 on 256 images of 64 px keeps an H100 busy for a quarter of that time. A CUDA
graph is captured once and launched as a whole. `benchmarks/trainer_overhead.py --trainer gpu`
measures the gain.
"""

import logging
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from cls_models.acceleration.compilation import CompileCallback
from cls_models.acceleration.device_update import GradientClip
from cls_models.acceleration.step_graph import StepGraph
from cls_models.classification_module import ClassificationModule

_log = logging.getLogger(__name__)

_WARMUP_STEPS = 3
"""Plain steps before a capture: they select kernels and create the optimizer's state."""


class CudaGraphCallback(Callback):
    """Capture the step of a `ClassificationModule` as CUDA graphs, after a few plain steps.

    If a batch's shape, the frozen layers, or the training mode differ from the capture, the next
    steps are plain ones, and then the step is captured again. Nothing is captured on other devices,
    with several devices, with `CompileCallback`, in float16, or if the network or the loss does not
    support it; the reason is logged.
    """

    def __init__(self) -> None:
        self._graph: StepGraph | None = None
        self._accumulated_batches = 1
        self._is_state_checked = False
        self._plain_steps = 0
        self._is_disabled = False
        self._has_logged_failure = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reset the state of an earlier fit."""
        self._plain_steps = 0
        reason = get_unsupported_reason(trainer, pl_module)
        self._is_disabled = reason is not None
        if reason is not None and pl_module.device.type == "cuda":
            _log.info("CUDA graph disabled: %s", reason)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the graph at the next step: layers may be frozen now."""
        self._is_state_checked = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the graph at the next step."""
        self._is_state_checked = False

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Load a batch into the graph. Without one, capture it, or take a plain step."""
        if self._is_disabled:
            return
        assert isinstance(pl_module, ClassificationModule)
        if self._graph is not None and not self._is_current(trainer, batch):
            self._release(pl_module)
        if self._graph is None:
            # A new sum of gradients starts here.
            is_first = batch_idx % trainer.accumulate_grad_batches == 0
            if self._plain_steps < _WARMUP_STEPS or not is_first:
                self._plain_steps += is_first
                return
            self._capture(trainer, pl_module, batch)
        if self._graph is not None:
            self._graph.load(batch)
            self._log_update_failure(self._graph)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Free the graph."""
        self._release(pl_module)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Free the graph."""
        self._release(pl_module)

    def _is_current(self, trainer: Trainer, batch: Any) -> bool:
        assert self._graph is not None
        if not self._graph.accepts(batch):
            return False
        if self._is_state_checked:
            return True
        self._is_state_checked = True
        is_same_sum = self._accumulated_batches == trainer.accumulate_grad_batches
        return is_same_sum and self._graph.matches_state()

    def _capture(self, trainer: Trainer, module: ClassificationModule, batch: Any) -> None:
        self._accumulated_batches = trainer.accumulate_grad_batches
        if module.device.type == "cuda":
            torch.cuda.empty_cache()  # the graph has its own memory; free what steps have cached
        try:
            graph = StepGraph(
                module,
                module.compute_loss,
                trainer.optimizers[0],
                batch,
                precision=trainer.precision_plugin.train_step_context,
                accumulated_batches=self._accumulated_batches,
                clip=_get_clip(trainer),
            )
        except Exception as error:  # layers that cannot be captured raise many exception types
            self._is_disabled = True
            _log.warning("CUDA graph disabled: the step cannot be captured: %s", error)
            return
        self._graph = graph
        module.step_graph = graph

    def _log_update_failure(self, graph: StepGraph) -> None:
        if graph.update_failure is not None and not self._has_logged_failure:
            self._has_logged_failure = True
            _log.info("CUDA graph without the update of the weights: %s", graph.update_failure)

    def _release(self, module: LightningModule) -> None:
        if self._graph is None:
            return
        self._graph.release()
        self._graph = None
        self._plain_steps = 0
        assert isinstance(module, ClassificationModule)
        module.step_graph = None


def get_unsupported_reason(trainer: Trainer, module: LightningModule) -> str | None:
    """Return why a training run cannot use CUDA graphs, or None if it can."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set undeclared
    if module.device.type != "cuda":
        return f"the device type is {module.device.type}"
    if not isinstance(module, ClassificationModule):
        return f"{type(module).__name__} is not a ClassificationModule"
    if trainer.world_size > 1:
        return "training runs on several devices"
    if any(isinstance(callback, CompileCallback) for callback in callbacks):
        return "CompileCallback is active"
    if getattr(trainer.precision_plugin, "scaler", None) is not None:
        return "the loss scale of float16 is kept on the host"
    return None


def _get_clip(trainer: Trainer) -> GradientClip | None:
    if not trainer.gradient_clip_val:
        return None
    by_value = trainer.gradient_clip_algorithm == "value"
    return GradientClip(float(trainer.gradient_clip_val), by_value=by_value)
