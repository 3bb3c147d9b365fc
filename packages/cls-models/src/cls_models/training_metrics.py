"""Loss and accuracy of the training epoch, over all ranks and over interruptions."""

from typing import Any

from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy

from cls_models.rank_reduction import sum_over_ranks


class TrainingMetrics(nn.Module):
    """Mean loss and top-1 accuracy of an epoch.

    Args:
        num_classes: C.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        # The default NaN check would synchronize with the device at every step.
        self._loss = MeanMetric(nan_strategy="disable")
        self._top1 = MulticlassAccuracy(num_classes, average="micro")

    def update(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add one batch: a scalar, logits [B, C], and labels int64 [B], none with a gradient."""
        # Unweighted, because all batches have the same size and a weight would synchronize.
        self._loss.update(loss)
        self._top1.update(logits, labels)

    def compute(self) -> dict[str, Tensor]:
        """Return train_loss and train_top1 over all ranks."""
        return {"train_loss": self._loss.compute(), "train_top1": self._top1.compute()}

    def sum_losses(self) -> float:
        """Return the sum of all losses of all ranks; synchronizes with the device."""
        assert isinstance(self._loss.mean_value, Tensor)
        return float(sum_over_ranks(self._loss.mean_value))

    def reset(self) -> None:
        """Start a new epoch."""
        self._loss.reset()
        self._top1.reset()

    def get_state(self, world_size: int) -> dict[str, Any]:
        """Return the state over all ranks, for a checkpoint."""
        return {
            "loss": _get_sums(self._loss),
            "top1": _get_sums(self._top1),
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
        scaled = {name: value * scale for name, value in state["loss"].items()}
        _set_sums(self._loss, scaled)
        _set_sums(self._top1, state["top1"])


def _get_sums(metric: Metric) -> dict[str, Tensor]:
    """Return the state of a metric over all ranks, on the CPU; all its states must be sums."""
    state = {}
    for name, value in metric.metric_state.items():
        assert isinstance(value, Tensor)
        total = sum_over_ranks(value.detach())
        state[name] = total.cpu()
    return state


def _set_sums(metric: Metric, state: dict[str, Tensor]) -> None:
    for name, value in state.items():
        setattr(metric, name, value.to(metric.device))
