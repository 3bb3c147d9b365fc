"""The network's training step as one CUDA graph: launched at once, where its hundreds of kernels wait for Python.

On a fast GPU a step of a small network takes as long as the host needs to launch it: a ResNet-18 on 256 images of 64 px
keeps an H100 busy for a fraction of that time. A graph is recorded once and launched as a whole. What it brings is
measured by `benchmarks/training.py overhead --trainer gpu`.
"""

import logging
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch import Tensor, nn

from cls_models.acceleration.compilation import Compilation
from cls_models.acceleration.hardware import DeviceClock

_log = logging.getLogger(__name__)

_PLAIN_EPOCHS = 2
"""At the beginning, of which the last is compared with: in the first one kernels are chosen and memory is taken."""


class CudaGraph(Callback):
    """Records forward and backward pass of the backbone behind the second epoch, and keeps the record if it is faster.

    It is where the host is the limit: at 64 px a ResNet-18 trains 1.65 times as fast on an H100, and 1.7 to 2 times on
    an H200; at 224 px, where the device is, it makes no difference that lasts. So the mean step of an epoch with the
    graph is compared with one of the second epoch: the first one is slow itself.

    Where a batch, the frozen layers or the mode differ from what was recorded, as in a validation, the network runs as
    it is; what an epoch found different is recorded for the next. Nothing is recorded on other devices, in a training
    on several, beside `Compilation`, where gradients are accumulated over batches, or of a network that cannot be
    recorded, which is logged.
    """

    def __init__(self) -> None:
        self._met: Tensor | None = None
        self._recorded: _Recorded | None = None
        self._given_up = False
        self._clock: DeviceClock | None = None
        self._epochs = 0
        self._plain_seconds: float | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget an earlier fit."""
        self._release()
        self._met, self._plain_seconds, self._epochs = None, None, 0
        reason = reason_against(trainer, pl_module.device)
        self._given_up = reason is not None
        if reason is not None:
            _log.info("the network is not run as a CUDA graph, since %s", reason)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record, or record anew. No thread makes batches at this moment, which would break the recording off."""
        self._epochs += 1
        self._clock = None if self._given_up else DeviceClock(pl_module.device)
        if self._given_up or self._met is None or self._epochs <= _PLAIN_EPOCHS:
            return
        if self._recorded is not None:
            self._recorded.launches = 0
            if self._recorded.still_fits(self._met):
                return
            self._release()
        backbone = pl_module.backbone
        assert isinstance(backbone, nn.Module)
        try:
            with trainer.precision_plugin.forward_context():
                self._recorded = _Recorded(backbone, self._met)
        except Exception as error:  # whatever a layer does that cannot be recorded
            self._given_up = True
            _log.warning(
                "the network is not run as a CUDA graph, since it cannot be recorded: %s", error
            )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Learn the shape of a batch, and time the step."""
        self._met = batch["images"]
        if self._clock is not None:
            self._clock.tick()
            if (
                trainer.is_last_batch
            ):  # what other callbacks do at an epoch's end is no part of a step
                self._clock.pause()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do not count a validation as a step."""
        if self._clock is not None:
            self._clock.pause()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Drop the graph where steps were faster without it."""
        seconds = None if self._clock is None else self._clock.seconds
        if seconds is None or self._given_up:
            return
        if self._recorded is None or self._recorded.launches == 0:
            self._plain_seconds = seconds
        elif self._plain_seconds is not None:
            figures = f"a step takes {seconds:.3g} s as a CUDA graph, and {self._plain_seconds:.3g} s without"
            if seconds < self._plain_seconds:
                _log.info("%s", figures)
                self._plain_seconds = None  # it is said, and decided, once for what was recorded
            else:
                _log.info("%s, so it is dropped", figures)
                self._given_up = True
                self._release()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the network its own forward back, and the graph's memory to others."""
        self._release()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Give the network its own forward back."""
        self._release()

    def _release(self) -> None:
        if self._recorded is not None:
            self._recorded.release()
            self._recorded = None


def reason_against(trainer: Trainer, device: torch.device) -> str | None:
    """Say why nothing is recorded in a training on this device, as the end of a sentence; None where it can be."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set undeclared
    if device.type != "cuda":
        return f"the device is of type {device.type}"
    if trainer.world_size > 1:
        return "the training is on several devices"
    if any(isinstance(each, Compilation) for each in callbacks):
        return "Compilation is at work"
    # A launch leaves the graph's own memory as gradients, which the next one writes over instead of adding to it.
    if trainer.accumulate_grad_batches > 1 or any(
        isinstance(each, GradientAccumulationScheduler) and each.going_to_accumulate_grad_batches()
        for each in callbacks
    ):
        return "gradients are accumulated over batches"
    return None


class _Recorded:
    """A network whose forward launches a graph wherever one was recorded for what it is given."""

    def __init__(self, backbone: nn.Module, example: Tensor) -> None:
        self._backbone = backbone
        self._parameters, self._modules = list(backbone.parameters()), list(backbone.modules())
        self._own_forward = backbone.forward
        self._for = self._state(example)
        self._graph = _recorded_as_graph(backbone, example)
        self.launches = 0
        backbone.forward = self._forward
        # Gradients come from the stream of the recording; the order between streams is kept, and told as a warning.
        torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)

    def still_fits(self, images: Tensor) -> bool:
        """Say whether the network would be recorded as it was."""
        return self._for == self._state(images)

    def release(self) -> None:
        """Leave the network as it was."""
        torch.cuda.synchronize()  # the device may be at it
        del self._backbone.forward  # the one that hides the class's own
        torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(True)

    def _forward(self, images: Tensor) -> Tensor:
        if torch.is_grad_enabled() and self._for == self._state(images):
            self.launches += 1
            logits: Tensor = self._graph(images)
            return logits
        return self._own_forward(images)  # type: ignore[no-any-return]

    def _state(self, images: Tensor) -> tuple[object, ...]:
        """Return what a graph holds fixed."""
        return (
            images.shape,
            images.dtype,
            torch.is_autocast_enabled("cuda") and torch.get_autocast_dtype("cuda"),
            [parameter.requires_grad for parameter in self._parameters],
            [module.training for module in self._modules],
        )


class _Whole(nn.Module):
    """A module around the backbone, as recording replaces the forward of the module that it is given."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.training = backbone.training

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.backbone(images)
        return logits


def _recorded_as_graph(backbone: nn.Module, example: Tensor) -> nn.Module:
    """Record, and leave statistics and random state as they were: warming up takes steps on random images."""
    kept = [buffer.clone() for buffer in backbone.buffers()]
    torch.cuda.empty_cache()  # the graph has memory of its own, and the steps before it leave theirs unused
    with (
        torch.random.fork_rng(devices=[example.device]),
        torch.autocast(
            "cuda",
            dtype=torch.get_autocast_dtype("cuda"),
            enabled=torch.is_autocast_enabled("cuda"),
            cache_enabled=False,  # a weight that was cast outside the graph would never change in it
        ),
    ):
        # Some networks have parameters that a step does not use.
        graph = _Whole(backbone)
        torch.cuda.make_graphed_callables(
            graph, (torch.randn_like(example),), allow_unused_input=True
        )
    with torch.no_grad():
        for buffer, before in zip(backbone.buffers(), kept, strict=True):
            buffer.copy_(before)
    return graph
