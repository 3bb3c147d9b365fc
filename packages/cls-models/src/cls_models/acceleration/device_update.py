"""Run an optimizer's update as one launch that reads the learning rates from the device."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from cls_models.acceleration.replay import Replay
from cls_models.optim.muon import Muon

_NOT_CAPTURED = ("params", "lr")
"""Keys of a parameter group that may change without a new capture."""


class GradientClip(NamedTuple):
    """How gradients are clipped, as Lightning's trainer does it.

    Attributes:
        value: Largest norm of all gradients together, or with `by_value` of each element.
        by_value: Clip each element.
    """

    value: float
    by_value: bool = False

    def __call__(self, parameters: list[nn.Parameter]) -> None:
        """Clip the gradients of the parameters in place."""
        if self.by_value:
            nn.utils.clip_grad_value_(parameters, self.value)
        else:
            nn.utils.clip_grad_norm_(parameters, self.value)


class DeviceUpdate:
    """Clips the gradients and updates the weights in one launch.

    The learning rates are the ones in the optimizer's groups at each call. A change of other
    settings, such as a cycled momentum, needs a new capture; see `is_outdated`. Fused kernels are
    used for optimizers of PyTorch that have them.

    Args:
        optimizer: It must have updated all its parameters once, which creates its state.
        clip: Clips the gradients before the update; None leaves them.

    Raises:
        RuntimeError: The optimizer cannot be captured.
    """

    def __init__(self, optimizer: Optimizer, clip: GradientClip | None) -> None:
        self._optimizer = optimizer
        self._clip = clip
        self._parameters = [each for group in optimizer.param_groups for each in group["params"]]
        self._device = self._parameters[0].device
        self._captured_settings = self._get_settings()
        self._rates = self._get_rates()
        self._device_rates = torch.tensor(self._rates, device=self._device)
        self._counters = self._move_counters_to_device()
        try:
            self._replay = Replay(self._update, self._device)
        except Exception:
            self.release()
            raise

    def __call__(self) -> None:
        """Update the weights."""
        rates = self._get_rates()
        if rates != self._rates:
            values = torch.tensor(rates, pin_memory=self._device.type == "cuda")
            self._device_rates.copy_(values, non_blocking=True)
            self._rates = rates
        self._replay()

    def is_outdated(self) -> bool:
        """Return whether a setting other than the learning rate has changed since the capture."""
        return self._get_settings() != self._captured_settings

    def release(self) -> None:
        """Let the optimizer step on its own again."""
        for state, device in self._counters:
            state["step"] = state["step"].to(device)

    def _update(self) -> None:
        if self._clip is not None:
            self._clip(self._parameters)
        with self._settings_for_capture():
            # The class's own method: the instance's may be a wrapper of a schedule.
            type(self._optimizer).step(self._optimizer)

    @contextmanager
    def _settings_for_capture(self) -> Iterator[None]:
        """Let the optimizer read rates from the device, and launch kernels that never wait."""
        groups = self._optimizer.param_groups
        before = [dict(group) for group in groups]
        has_fused_kernels = isinstance(self._optimizer, SGD | Adam | Muon)
        for group, rate in zip(groups, self._device_rates, strict=True):
            group["lr"] = rate
            if "capturable" in group:
                group["capturable"] = self._device.type == "cuda"
            if "fused" in group and has_fused_kernels:
                group["fused"] = True
        try:
            yield
        finally:
            for group, settings in zip(groups, before, strict=True):
                group.update(settings)

    def _move_counters_to_device(self) -> list[tuple[dict[str, Any], torch.device]]:
        """Move step counters to the device; return their states and where they were."""
        moved = []
        for state in self._optimizer.state.values():
            counter = state.get("step")
            if isinstance(counter, Tensor) and counter.device != self._device:
                moved.append((state, counter.device))
                state["step"] = counter.to(self._device, torch.float32)
        return moved

    def _get_rates(self) -> list[float]:
        return [float(group["lr"]) for group in self._optimizer.param_groups]

    def _get_settings(self) -> list[dict[str, Any]]:
        settings = []
        for group in self._optimizer.param_groups:
            settings.append({key: group[key] for key in group if key not in _NOT_CAPTURED})
        return settings
