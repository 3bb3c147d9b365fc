"""Muon for hidden weight matrices, AdamW for everything else, as one optimizer."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic iteration, chosen for the steepest rise at 0: Keller Jordan, kellerjordan.github.io/posts/muon."""


class Muon(Optimizer):
    """Moves each hidden matrix along the nearest semi-orthogonal one to its gradient's momentum.

    Muon is by Jordan et al. (kellerjordan.github.io/posts/muon). Its steps are scaled by 0.2 sqrt(max(rows, columns))
    so that their root mean square is that of AdamW's (Liu et al., arXiv:2502.16982, equation 4): one learning rate
    and one weight decay, of the size that AdamW likes, serve both, and one schedule scales both.

    It differs from `torch.optim.Muon`, which takes matrices alone: filters of convolutions are taken as matrices
    [out, in * height * width], without which it would have nothing to do in a ResNet; matrices of one shape are
    orthogonalised together; and bfloat16 is used where it is fast, on accelerators, but not on a CPU.

    A step costs about 30 min(rows, columns)² max(rows, columns) operations a matrix whatever the batch size is, for a
    ResNet-18 about as much as training on a hundred images of 64 px: it wants large batches, or an accelerator.

    Args:
        params: the groups of `param_groups`; `matrices` in a group says which of the two moves it.
        lr: learning rate of both.
        weight_decay: of both, decoupled; groups may set their own.
        momentum: of Muon, 0 to below 1, in Nesterov's form.
        iterations: Newton-Schulz steps towards the orthogonal matrix.
        betas: of AdamW.
        eps: of AdamW.
        fused: of AdamW.

    Raises:
        ValueError: no group is of matrices, or a setting is out of range.
    """

    def __init__(
        self,
        params: list[dict[str, Any]],
        lr: float = 1e-3,
        *,
        weight_decay: float = 0.05,
        momentum: float = 0.95,
        iterations: int = 5,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        fused: bool | None = None,
    ) -> None:
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be 0 or more and below 1, got {momentum}")
        if iterations < 1:
            raise ValueError(f"iterations must be at least 1, got {iterations}")
        betas = (betas[0], betas[1])  # YAML gives a list
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "iterations": iterations,
        }
        super().__init__(params, {**defaults, "betas": betas, "eps": eps, "matrices": False})
        if not any(group["matrices"] for group in self.param_groups):
            raise ValueError(
                "Muon needs weight matrices between the stem and the head, as build_optimizer finds them, and there "
                "are none; use AdamW"
            )
        # Its constructor fills in what the groups lack; they are the same objects here and there.
        self._adamw = AdamW(self._groups(matrices=False), lr, betas, eps, weight_decay, fused=fused)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self._groups(matrices=True):
            self._move_matrices(group)
        # Bound anew each time: loading a checkpoint replaces both.
        self._adamw.state, self._adamw.param_groups = self.state, self._groups(matrices=False)
        self._adamw.step()
        return loss

    def _groups(self, *, matrices: bool) -> list[dict[str, Any]]:
        return [group for group in self.param_groups if group["matrices"] == matrices]

    def _move_matrices(self, group: dict[str, Any]) -> None:
        moving = [parameter for parameter in group["params"] if parameter.grad is not None]
        by_shape: dict[tuple[int, int], list[Tensor]] = {}
        for parameter in moving:
            by_shape.setdefault((len(parameter), parameter[0].numel()), []).append(parameter)
        for parameters in by_shape.values():
            updates = orthogonalize(
                torch.stack(
                    [
                        self._momentum(parameter, group["momentum"]).flatten(1)
                        for parameter in parameters
                    ]
                ),
                group["iterations"],
            )
            rate = group["lr"] * 0.2 * math.sqrt(max(updates.shape[1:]))
            for parameter, update in zip(parameters, updates, strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update.reshape(parameter.shape).to(parameter.dtype), alpha=-rate)

    def _momentum(self, parameter: Tensor, momentum: float) -> Tensor:
        """Update a parameter's momentum and return what Nesterov looks ahead to."""
        gradient = parameter.grad
        assert gradient is not None
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer: Tensor = state["momentum_buffer"].lerp_(gradient, 1 - momentum)
        return gradient.lerp(buffer, momentum)


def orthogonalize(matrices: Tensor, iterations: int = 5) -> Tensor:
    """Bring all singular values of matrices [N, rows, columns] near 1, and leave their singular vectors.

    The values end between about 0.7 and 1.2 rather than at 1, which is as good for training and takes fewer steps.
    The result is bfloat16 on accelerators, float32 on a CPU.
    """
    a, b, c = _COEFFICIENTS
    x = matrices.to(torch.float32 if matrices.device.type == "cpu" else torch.bfloat16)
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
