"""A training step as two launches: one computes the gradients, the other updates the weights."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from types import MethodType
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cls_data import ClassificationBatch
from cls_models.acceleration.device_update import DeviceUpdate, GradientClip
from cls_models.acceleration.replay import Replay


class StepGraph:
    """Computes the gradients of a batch in one launch, and lets the optimizer use another.

    Between the two, Lightning calls its hooks as usual, so a callback can read or change the
    gradients. If the update cannot be captured, or a setting of the optimizer other than its
    learning rate changes, the optimizer steps as usual.

    Args:
        module: Its training mode and its frozen parameters are part of the capture.
        compute_loss: Maps a batch to the loss, a scalar.
        optimizer: It must have updated all its parameters once.
        batch: A batch of the shapes to come, on the device.
        precision: Returns the context in which the loss is computed.
        accumulated_batches: Batches whose gradients are added before an update.
        clip: Clips the gradients before an update; None leaves them.

    Attributes:
        update_failure: Why the update is not captured; None if it is.

    Raises:
        RuntimeError: The network or the loss cannot be captured.
    """

    def __init__(
        self,
        module: nn.Module,
        compute_loss: Callable[[ClassificationBatch], Tensor],
        optimizer: Optimizer,
        batch: ClassificationBatch,
        *,
        precision: Callable[[], AbstractContextManager[None]],
        accumulated_batches: int = 1,
        clip: GradientClip | None = None,
    ) -> None:
        self._module = module
        self._compute_loss = compute_loss
        self._optimizer = optimizer
        self._precision = precision
        self._accumulated_batches = accumulated_batches
        self._captured_state = self._get_state()
        self._inputs = _copy_inputs(batch, module)
        self._sums = self._create_gradient_sums()
        device = batch["images"].device
        self._loss = torch.zeros((), device=device)
        self._gradients = Replay(self._run_backward, device)

        self.update_failure: str | None = None
        self._update: DeviceUpdate | None = None
        try:
            self._update = DeviceUpdate(optimizer, clip)
        except Exception as error:  # optimizers that cannot be captured raise many types
            self.update_failure = str(error)

        self._plain_step = optimizer.step
        self._replace_methods()

    @property
    def clips_gradients(self) -> bool:
        """Whether the update clips the gradients."""
        return self._update is not None

    def accepts(self, batch: ClassificationBatch) -> bool:
        """Return whether a batch has the captured shapes."""
        tensors = _select_tensors(batch)
        if tensors.keys() != self._inputs.keys():
            return False
        for name, tensor in tensors.items():
            fixed = self._inputs[name]
            if tensor.shape != fixed.shape or tensor.dtype != fixed.dtype:
                return False
        return True

    def matches_state(self) -> bool:
        """Return whether training mode and frozen parameters are as they were at the capture."""
        return self._captured_state == self._get_state()

    def load(self, batch: ClassificationBatch) -> None:
        """Copy a batch to where the next launch reads it."""
        for name, tensor in _select_tensors(batch).items():
            self._inputs[name].copy_(tensor, non_blocking=True)
        if self._update is not None and self._update.is_outdated():
            self.update_failure = "a setting of the optimizer changes during training"
            self._update.release()
            self._update = None

    def compute_gradients(self, *, is_first: bool) -> Tensor:
        """Compute the gradients of the loaded batch, and return its loss.

        Args:
            is_first: Whether the batch is the first since the latest update.
        """
        if self._sums and is_first:
            torch._foreach_zero_(self._sums)
        self._gradients()
        return self._loss

    def release(self) -> None:
        """Restore the optimizer, and free the gradients, which are in the memory of the graph."""
        if self._loss.is_cuda:
            torch.cuda.synchronize()  # a graph may still be running
        self._optimizer.step = self._plain_step  # type: ignore[method-assign]
        del self._optimizer.zero_grad  # the attribute of the instance
        if self._update is not None:
            self._update.release()
        self._optimizer.zero_grad()

    def _replace_methods(self) -> None:
        """Let the optimizer's methods launch the update, and keep gradients where they are."""

        def step(optimizer: Optimizer, closure: Callable[[], Any] | None = None) -> Any:
            del optimizer
            if self._update is None:
                return self._plain_step(closure)
            result = None
            if closure is not None:
                with torch.enable_grad():
                    result = closure()
            self._update()
            return result

        def keep_gradients(optimizer: Optimizer, *, set_to_none: bool = True) -> None:
            pass

        # Schedules of PyTorch look for this mark of theirs at their first step.
        step._wrapped_by_lr_sched = True  # type: ignore[attr-defined]
        optimizer: Any = self._optimizer
        optimizer.step = MethodType(step, optimizer)
        optimizer.zero_grad = MethodType(keep_gradients, optimizer)

    def _run_backward(self) -> None:
        if not self._sums:
            type(self._optimizer).zero_grad(self._optimizer)
        with self._precision(), _no_autocast_cache(self._loss.device):
            batch = cast("ClassificationBatch", self._inputs)
            loss = self._compute_loss(batch)
        (loss / self._accumulated_batches).backward()  # type: ignore[no-untyped-call]
        self._loss.copy_(loss.detach())

    def _create_gradient_sums(self) -> list[Tensor]:
        """Let each parameter that gets gradients add them up in one place; without sums, no-op."""
        if self._accumulated_batches == 1:
            return []
        sums = []
        for parameter in self._module.parameters():
            if parameter.grad is not None:
                parameter.grad = torch.zeros_like(parameter)
                sums.append(parameter.grad)
        return sums

    def _get_state(self) -> tuple[list[bool], list[bool]]:
        trained = [parameter.requires_grad for parameter in self._module.parameters()]
        modes = [module.training for module in self._module.modules()]
        return trained, modes


def _select_tensors(batch: ClassificationBatch) -> dict[str, Tensor]:
    return {name: value for name, value in batch.items() if isinstance(value, Tensor)}


def _copy_inputs(batch: ClassificationBatch, module: nn.Module) -> dict[str, Tensor]:
    """Copy a batch, with images in the memory layout of the network's weights."""
    inputs = {name: tensor.clone() for name, tensor in _select_tensors(batch).items()}
    if any(_is_channels_last(parameter) for parameter in module.parameters()):
        inputs["images"] = inputs["images"].contiguous(memory_format=torch.channels_last)
    return inputs


def _is_channels_last(parameter: Tensor) -> bool:
    return (
        parameter.ndim == 4
        and not parameter.is_contiguous()
        and parameter.is_contiguous(memory_format=torch.channels_last)
    )


def _no_autocast_cache(device: torch.device) -> AbstractContextManager[Any]:
    """Keep autocast from reusing a weight that was cast outside of the graph."""
    return torch.autocast(
        device.type,
        dtype=torch.get_autocast_dtype(device.type),
        enabled=torch.is_autocast_enabled(device.type),
        cache_enabled=False,
    )
