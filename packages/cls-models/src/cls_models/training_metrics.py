"""Loss and accuracy of the training epoch, over all ranks and over interruptions."""

from typing import Any

import torch
from torch import Tensor

from cls_models.rank_reduction import sum_over_ranks


class TrainingMetrics:
    """Mean loss and top-1 accuracy of an epoch.

    The sums stay the same tensors after `move`, because a CUDA graph adds to them.
    """

    def __init__(self) -> None:
        self._loss_sum = torch.zeros(())
        self._num_losses = torch.zeros(())
        self._num_correct = torch.zeros((), dtype=torch.int64)
        self._num_incorrect = torch.zeros((), dtype=torch.int64)

    def move(self, device: torch.device) -> None:
        """Keep the sums on the device of the batches from now on."""
        self._loss_sum = self._loss_sum.to(device)
        self._num_losses = self._num_losses.to(device)
        self._num_correct = self._num_correct.to(device)
        self._num_incorrect = self._num_incorrect.to(device)

    def update(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add one batch: a scalar, logits [B, C], and labels int64 [B], none with a gradient."""
        is_correct = logits.argmax(dim=1) == labels
        # Losses are not weighted: all batches have the same size.
        self._loss_sum += loss
        self._num_losses += 1
        self._num_correct += is_correct.sum()
        self._num_incorrect += (~is_correct).sum()

    def compute(self) -> dict[str, Tensor]:
        """Return train_loss and train_top1 over all ranks; NaN before the first batch."""
        correct = sum_over_ranks(self._num_correct)
        incorrect = sum_over_ranks(self._num_incorrect)
        return {
            "train_loss": sum_over_ranks(self._loss_sum) / sum_over_ranks(self._num_losses),
            "train_top1": correct / (correct + incorrect),
        }

    def sum_losses(self) -> float:
        """Return the sum of all losses of all ranks; synchronizes with the device."""
        return float(sum_over_ranks(self._loss_sum))

    def reset(self) -> None:
        """Start a new epoch."""
        for total in (
            self._loss_sum,
            self._num_losses,
            self._num_correct,
            self._num_incorrect,
        ):
            total.zero_()

    def get_state(self, world_size: int) -> dict[str, Any]:
        """Return the sums over all ranks, for a checkpoint."""
        return {
            "loss": {
                "mean_value": _save(self._loss_sum),
                "weight": _save(self._num_losses),
            },
            "top1": {
                "tp": _save(self._num_correct),
                "fn": _save(self._num_incorrect),
            },
            "world_size": world_size,
        }

    def restore_state(self, state: dict[str, Any], rank: int, world_size: int) -> None:
        """Continue from the result of `get_state`, also with another number of ranks.

        The other ranks than the first keep the state of a new metric, so that the sum over all
        ranks is the saved one.
        """
        if rank > 0:
            return
        # Each step adds one loss of each rank.
        losses_per_step = state.get("world_size", 1)  # version 0.1 trained on one device
        scale = world_size / losses_per_step
        self._loss_sum.copy_(state["loss"]["mean_value"] * scale)
        self._num_losses.copy_(state["loss"]["weight"] * scale)
        # Version 0.1 saved these two with shape [1].
        self._num_correct.copy_(state["top1"]["tp"].squeeze())
        self._num_incorrect.copy_(state["top1"]["fn"].squeeze())


def _save(total: Tensor) -> Tensor:
    return sum_over_ranks(total).cpu().clone()
