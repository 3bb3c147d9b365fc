"""Muon for hidden weight matrices and AdamW for all other parameters, as one optimizer."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration, chosen for the steepest slope at 0.

From Keller Jordan, kellerjordan.github.io/posts/muon."""


class Muon(Optimizer):
    """Update hidden matrices by their orthogonalized momentum, and other parameters by AdamW.

    Muon is by Jordan et al. (kellerjordan.github.io/posts/muon). Its updates are scaled by
    0.2 sqrt(max(rows, columns)), which gives them the root mean square of AdamW's (Liu et al.,
    arXiv:2502.16982, equation 4). One learning rate, one weight decay, and one schedule of AdamW's
    usual size therefore fit both.

    Unlike `torch.optim.Muon`, which takes matrices only, it treats convolution filters as matrices
    [out, in * height * width] (a ResNet has no other hidden matrices), orthogonalizes matrices of
    the same shape together, and uses bfloat16 on accelerators only, because it is slow on a CPU.

    A step costs about 30 min(rows, columns)² max(rows, columns) operations per matrix at any batch
    size. For a ResNet-18 this is about as much as training on a hundred images of 64 px, so Muon
    needs large batches or an accelerator.

    Args:
        params: Groups of `build_param_groups`; a group's `matrices` selects Muon or AdamW.
        lr: Learning rate of both.
        weight_decay: Decoupled weight decay of both; groups may override it.
        momentum: Nesterov momentum of Muon, at least 0 and below 1.
        iterations: Newton-Schulz iterations of Muon's orthogonalization.
        betas: Of AdamW, like `eps` and `fused`.

    Raises:
        ValueError: No group has matrices, or an argument is out of range.
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
            "betas": betas,
            "eps": eps,
            "matrices": False,
        }
        super().__init__(params, defaults)
        if not any(group["matrices"] for group in self.param_groups):
            raise ValueError(
                "Muon needs weight matrices between the stem and the head, and this network has "
                "none; use AdamW"
            )
        # AdamW's constructor fills in its defaults in the same group objects.
        self._adamw = AdamW(
            self._select_groups(matrices=False), lr, betas, eps, weight_decay, fused=fused
        )

    @torch.no_grad()
    def step(  # type: ignore[override]
        self, closure: Callable[[], float] | None = None
    ) -> float | None:
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self._select_groups(matrices=True):
            self._update_matrices(group)
        # Set at each step, because loading a checkpoint replaces both objects.
        self._adamw.state = self.state
        self._adamw.param_groups = self._select_groups(matrices=False)
        self._adamw.step()
        return loss

    def _select_groups(self, *, matrices: bool) -> list[dict[str, Any]]:
        return [group for group in self.param_groups if group["matrices"] == matrices]

    def _update_matrices(self, group: dict[str, Any]) -> None:
        by_shape: dict[tuple[int, int], list[Tensor]] = {}
        for parameter in group["params"]:
            if parameter.grad is not None:
                shape = (len(parameter), parameter[0].numel())
                by_shape.setdefault(shape, []).append(parameter)

        for shape, parameters in by_shape.items():
            momenta = []
            for parameter in parameters:
                momentum = self._update_momentum(parameter, group["momentum"])
                momenta.append(momentum.flatten(1))
            updates = orthogonalize(torch.stack(momenta), group["iterations"])

            decay = 1 - group["lr"] * group["weight_decay"]
            rate = group["lr"] * 0.2 * math.sqrt(max(shape))
            for parameter, update in zip(parameters, updates, strict=True):
                update = update.reshape(parameter.shape).to(parameter.dtype)
                parameter.mul_(decay)
                if isinstance(rate, Tensor):  # on the device, for a CUDA graph
                    parameter.sub_(update.mul_(rate))
                else:
                    parameter.add_(update, alpha=-rate)

    def _update_momentum(self, parameter: Tensor, momentum: float) -> Tensor:
        """Update a parameter's momentum buffer, and return the Nesterov momentum."""
        gradient = parameter.grad
        assert gradient is not None
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer: Tensor = state["momentum_buffer"]
        buffer.lerp_(gradient, 1 - momentum)
        return gradient.lerp(buffer, momentum)


def orthogonalize(matrices: Tensor, iterations: int = 5) -> Tensor:
    """Bring the singular values of matrices [N, rows, columns] close to 1.

    Singular vectors do not change. The values end between about 0.7 and 1.2, which trains as well
    as exactly 1 and takes fewer iterations. The result is bfloat16 on accelerators and float32 on a
    CPU.
    """
    a, b, c = _COEFFICIENTS
    is_cpu = matrices.device.type == "cpu"
    x = matrices.to(torch.float32 if is_cpu else torch.bfloat16)
    is_tall = x.shape[1] > x.shape[2]
    if is_tall:
        x = x.mT

    norm = x.norm(dim=(1, 2), keepdim=True)
    x = x / norm.clamp(min=1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x.mT if is_tall else x
