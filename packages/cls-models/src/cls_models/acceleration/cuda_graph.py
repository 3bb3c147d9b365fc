"""Run the network's forward and backward pass as one CUDA graph.

On a fast GPU, a step of a small network takes as long as the host needs to launch its hundreds of
kernels: a ResNet-18 on 256 images of 64 px keeps an H100 busy for a fraction of that time. A CUDA
graph is captured once and launched as a whole. `benchmarks/trainer_overhead.py --trainer gpu`
measures the gain.
"""

import logging
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch import Tensor, nn

from cls_models.acceleration.compilation import CompileCallback
from cls_models.acceleration.step_timers import DeviceStepTimer

_log = logging.getLogger(__name__)

_EAGER_EPOCHS = 2
"""Epochs before the capture. The first selects kernels and allocates memory; the last is timed."""


class CudaGraphCallback(Callback):
    """Capture the backbone's training pass after two epochs, and keep the graph if it is faster.

    It helps where the host is the bottleneck: at 64 px a ResNet-18 trains 1.65 times as fast on an
    H100, and 1.7 to 2 times on an H200. At 224 px, where the device is the bottleneck, there is no
    lasting gain. So the mean step of the first epoch with the graph is compared with that of
    the second epoch.

    If a batch's shape, the frozen layers, or the mode differ from the capture, as in validation,
    the network runs eagerly, and the next epoch captures it again. Nothing is captured on other
    devices, with several devices, with `CompileCallback`, with gradient accumulation, or if the
    network does not support it; the reason is logged.
    """

    def __init__(self) -> None:
        self._last_images: Tensor | None = None
        self._graphed: _GraphedBackbone | None = None
        self._is_disabled = False
        self._timer: DeviceStepTimer | None = None
        self._epochs = 0
        self._eager_seconds: float | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reset the state of an earlier fit."""
        self._release()
        self._last_images = None
        self._eager_seconds = None
        self._epochs = 0
        reason = get_unsupported_reason(trainer, pl_module.device)
        self._is_disabled = reason is not None
        if reason is not None:
            _log.info("CUDA graph disabled: %s", reason)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Capture, at a time when no thread prepares batches, which would abort the capture."""
        self._epochs += 1
        self._timer = None if self._is_disabled else DeviceStepTimer(pl_module.device)
        if self._is_disabled or self._last_images is None or self._epochs <= _EAGER_EPOCHS:
            return
        if self._graphed is not None:
            self._graphed.launches = 0
            if self._graphed.matches(self._last_images):
                return
            self._release()

        backbone = pl_module.backbone
        assert isinstance(backbone, nn.Module)
        try:
            with trainer.precision_plugin.forward_context():
                self._graphed = _GraphedBackbone(backbone, self._last_images)
        except Exception as error:  # layers that cannot be captured raise many exception types
            self._is_disabled = True
            _log.warning("CUDA graph disabled: the network cannot be captured: %s", error)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Remember the batch's shape and time the step."""
        self._last_images = batch["images"]
        if self._timer is not None:
            self._timer.tick()
            if trainer.is_last_batch:  # exclude other callbacks' work at the end of the epoch
                self._timer.pause()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Pause timing."""
        if self._timer is not None:
            self._timer.pause()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Drop the graph if eager steps are faster."""
        seconds = None if self._timer is None else self._timer.seconds
        if seconds is None or self._is_disabled:
            return
        if self._graphed is None or self._graphed.launches == 0:
            self._eager_seconds = seconds
        elif self._eager_seconds is not None:
            comparison = (
                f"a step takes {seconds:.3g} s with the CUDA graph and "
                f"{self._eager_seconds:.3g} s without it"
            )
            if seconds < self._eager_seconds:
                _log.info("%s", comparison)
                self._eager_seconds = None  # compare and log once per capture
            else:
                _log.info("%s; dropping the graph", comparison)
                self._is_disabled = True
                self._release()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the network's forward and free the graph's memory."""
        self._release()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Restore the network's forward."""
        self._release()

    def _release(self) -> None:
        if self._graphed is not None:
            self._graphed.release()
            self._graphed = None


def get_unsupported_reason(trainer: Trainer, device: torch.device) -> str | None:
    """Return why a CUDA graph cannot be used for a training run, or None if it can."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set undeclared
    if device.type != "cuda":
        return f"the device type is {device.type}"
    if trainer.world_size > 1:
        return "training runs on several devices"
    if any(isinstance(callback, CompileCallback) for callback in callbacks):
        return "CompileCallback is active"
    # The graph writes gradients into its own memory; the next launch overwrites them.
    accumulates = trainer.accumulate_grad_batches > 1
    for callback in callbacks:
        if isinstance(callback, GradientAccumulationScheduler):
            accumulates = accumulates or callback.going_to_accumulate_grad_batches()
    return "gradients are accumulated over batches" if accumulates else None


class _GraphedBackbone:
    """Replace a network's forward by a CUDA graph for inputs that match the captured ones."""

    def __init__(self, backbone: nn.Module, example: Tensor) -> None:
        self._backbone = backbone
        self._parameters = list(backbone.parameters())
        self._modules = list(backbone.modules())
        self._eager_forward = backbone.forward
        self._captured_state = self._get_state(example)
        self._graph = _capture_graph(backbone, example)
        self.launches = 0
        backbone.forward = self._forward
        # Gradients come from the capture stream. The order of streams is right, but torch warns.
        torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)

    def matches(self, images: Tensor) -> bool:
        """Return whether a capture with these images would equal the existing one."""
        return self._captured_state == self._get_state(images)

    def release(self) -> None:
        """Restore the network's own forward."""
        torch.cuda.synchronize()  # the graph may still be running
        del self._backbone.forward  # the instance attribute, which hides the class's method
        torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(True)

    def _forward(self, images: Tensor) -> Tensor:
        if torch.is_grad_enabled() and self.matches(images):
            self.launches += 1
            logits: Tensor = self._graph(images)
            return logits
        return self._eager_forward(images)  # type: ignore[no-any-return]

    def _get_state(self, images: Tensor) -> tuple[object, ...]:
        """Return everything that a captured graph fixes."""
        return (
            images.shape,
            images.dtype,
            torch.is_autocast_enabled("cuda") and torch.get_autocast_dtype("cuda"),
            [parameter.requires_grad for parameter in self._parameters],
            [module.training for module in self._modules],
        )


class _BackboneWrapper(nn.Module):
    """A module around the backbone, because capturing replaces the forward of its argument."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.training = backbone.training

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.backbone(images)
        return logits


def _capture_graph(backbone: nn.Module, example: Tensor) -> nn.Module:
    """Capture a graph without changing buffers or random state: warm-up steps use random images."""
    buffers_before = [buffer.clone() for buffer in backbone.buffers()]
    torch.cuda.empty_cache()  # the graph allocates its own memory; free what earlier steps cached
    wrapper = _BackboneWrapper(backbone)
    with (
        torch.random.fork_rng(devices=[example.device]),
        torch.autocast(
            "cuda",
            dtype=torch.get_autocast_dtype("cuda"),
            enabled=torch.is_autocast_enabled("cuda"),
            cache_enabled=False,  # weights cast outside the graph would never be updated in it
        ),
    ):
        torch.cuda.make_graphed_callables(
            wrapper,
            (torch.randn_like(example),),
            allow_unused_input=True,  # some networks have parameters that a step does not use
        )
    with torch.no_grad():
        for buffer, before in zip(backbone.buffers(), buffers_before, strict=True):
            buffer.copy_(before)
    return wrapper
