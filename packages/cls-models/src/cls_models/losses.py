"""Losses for imbalanced data and hard samples; for all other cases use `torch.nn.CrossEntropyLoss`.

Shapes: B images in a batch, C classes. Each loss maps logits float [B, C] and either labels int64
[B] or soft targets float [B, C], whose rows sum to 1 (mixup, cutmix), to a scalar of at least
float32.

They raise a ValueError for arguments out of range and for shapes that do not fit each other. They
add nothing to a state_dict, unlike the `weight` of PyTorch's `CrossEntropyLoss`, because their
buffers come from the training data.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

_MAX_CLASSES = 5
"""Classes listed in a message."""


class FocalLoss(nn.Module):
    """Cross-entropy that gives samples less weight the more confident the model is.

    The loss of one sample is the sum over the classes c of -t_c w_c (1 - p_c)^gamma log p_c. For
    labels this is equation 5 of Lin et al. 2017, "Focal Loss for Dense Object Detection",
    arXiv:1708.02002. It is linear in the target t, so the loss of a mixed sample is the mixture of
    its two losses, and label smoothing mixes with the uniform target. The focusing factor depends
    only on the softmax p, not on weights or smoothing.

    The reduction is that of `torch.nn.CrossEntropyLoss`: with labels, the sum is divided by the sum
    of the labels' weights; with soft targets, by B. So with weights, one-hot targets give the loss
    of the labels times their mean weight. With gamma 0, it equals `CrossEntropyLoss`.

    Args:
        gamma: Focusing parameter, 0 or more; 0 is cross-entropy. 2 works best in the paper.
        weight: Weight of each class, [C], above 0.
        label_smoothing: Fraction of the target that is spread over all classes, at least 0 and
            below 1.
    """

    weight: Tensor | None

    def __init__(
        self,
        gamma: float = 2.0,
        weight: Tensor | Sequence[float] | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 <= gamma < math.inf:
            raise ValueError(f"gamma must be 0 (plain cross-entropy) or more, got {gamma}")
        self.gamma = gamma
        self.label_smoothing = _check_smoothing(label_smoothing)
        if weight is not None:
            weight = _check_class_values(weight, "weight", "remove the class from the data").float()
        self.register_buffer("weight", weight, persistent=False)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of a batch in nats."""
        _check_shapes(logits, targets, self.weight, "weight")
        log_p = _to_float32(logits).log_softmax(dim=1)
        # Slightly above 0, where powers below 1 have an infinite slope. log_p is 0 there.
        smallest = torch.finfo(log_p.dtype).tiny
        one_minus_p = (-torch.expm1(log_p)).clamp_min(smallest)
        class_losses = -(one_minus_p**self.gamma) * log_p
        return self._reduce(class_losses, targets)

    def _reduce(self, class_losses: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss, given the loss of each class if it were the label, [B, C]."""
        divisor: Tensor | int = len(class_losses)
        weight = self.weight
        if weight is not None:
            weight = weight.to(class_losses.dtype)
            class_losses = class_losses * weight

        if targets.is_floating_point():
            total = (targets * class_losses).sum()
        else:
            total = class_losses.gather(1, targets[:, None]).sum()
            if weight is not None:
                divisor = weight[targets].sum()

        if self.label_smoothing:
            uniform_total = class_losses.mean(dim=1).sum()
            total = (1 - self.label_smoothing) * total + self.label_smoothing * uniform_total
        return total / divisor

    def extra_repr(self) -> str:
        """Return the settings."""
        settings = f"gamma={self.gamma}, label_smoothing={self.label_smoothing}"
        if self.weight is not None:
            settings += f", weight=[{len(self.weight)} classes]"
        return settings


class LogitAdjustedLoss(nn.Module):
    """Cross-entropy of logits + tau log(prior), for long-tailed data.

    The model learns logits for equally frequent classes. See Menon et al. 2021, "Long-tail learning
    via logit adjustment", arXiv:2007.07314. The adjustment applies in training mode only; in
    evaluation mode the loss is the plain cross-entropy of the deployed logits.

    It corrects the imbalance, so do not combine it with class weights or a balancing sampler.

    Args:
        class_counts: Number of training samples of each class, [C], above 0, for at least 2
            classes.
        tau: Strength of the adjustment, 0 (none) or more; 1 is consistent for the balanced error.
        label_smoothing: As for `FocalLoss`.
    """

    adjustment: Tensor

    def __init__(
        self, class_counts: Tensor | Sequence[float], tau: float = 1.0, label_smoothing: float = 0.0
    ) -> None:
        super().__init__()
        if not 0 <= tau < math.inf:
            raise ValueError(f"tau must be 0 (no adjustment) or more, got {tau}")
        self.tau = tau
        self.label_smoothing = _check_smoothing(label_smoothing)
        advice = "add samples of the class or remove it, because log(0) is infinite"
        counts = _check_class_values(class_counts, "class_counts", advice)
        if len(counts) < 2:
            raise ValueError(f"class_counts must have at least 2 classes, got {len(counts)}")
        log_prior = (counts / counts.sum()).log()
        adjustment = (tau * log_prior).float()
        self.register_buffer("adjustment", adjustment, persistent=False)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of a batch in nats."""
        _check_shapes(logits, targets, self.adjustment, "class_counts")
        logits = _to_float32(logits)
        if self.training:
            logits = logits + self.adjustment
        return functional.cross_entropy(logits, targets, label_smoothing=self.label_smoothing)

    def extra_repr(self) -> str:
        """Return the settings."""
        classes = len(self.adjustment)
        return f"tau={self.tau}, label_smoothing={self.label_smoothing}, {classes} classes"


def get_weight_sum(loss: nn.Module, targets: Tensor) -> Tensor | None:
    """Return the sum of class weights by which a loss divides a batch; None if it divides by B."""
    weight = None
    if isinstance(loss, FocalLoss) or (
        isinstance(loss, nn.CrossEntropyLoss) and loss.reduction == "mean"
    ):
        weight = loss.weight
    if weight is None or targets.is_floating_point():
        return None
    return weight[targets].sum()


def _check_smoothing(label_smoothing: float) -> float:
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing must be 0 or more and below 1, got {label_smoothing}")
    return label_smoothing


def _check_class_values(values: Tensor | Sequence[float], name: str, advice: str) -> Tensor:
    """Return the values as float64 [C] on the CPU; raise a ValueError unless all are positive."""
    tensor = torch.as_tensor(values, device="cpu").detach().to(torch.float64)
    if tensor.ndim != 1 or not len(tensor):
        raise ValueError(
            f"{name} must have shape [C], one number per class; got {list(tensor.shape)}"
        )

    is_valid = (tensor > 0) & tensor.isfinite()
    invalid = (~is_valid).nonzero().flatten().tolist()
    if invalid:
        listed = invalid[:_MAX_CLASSES]
        given = ", ".join(f"{tensor[index]:g} for class {index}" for index in listed)
        if len(invalid) > _MAX_CLASSES:
            given += f" and {len(invalid) - _MAX_CLASSES} more"
        raise ValueError(f"{name} must be above 0 and finite, got {given}; {advice}")
    return tensor


def _check_shapes(logits: Tensor, targets: Tensor, class_values: Tensor | None, name: str) -> None:
    """Raise a ValueError for shapes that broadcasting would accept silently."""
    if logits.ndim != 2:
        raise ValueError(f"logits must have shape [B, C], got {list(logits.shape)}")

    batch, classes = logits.shape
    expected = [batch, classes] if targets.is_floating_point() else [batch]
    if list(targets.shape) != expected:
        raise ValueError(
            f"logits {[batch, classes]} need labels int64 {[batch]} or soft targets float "
            f"{[batch, classes]}, got {targets.dtype} {list(targets.shape)}"
        )

    if class_values is not None and len(class_values) != classes:
        raise ValueError(f"{name} has {len(class_values)} classes, but the logits have {classes}")


def _to_float32(logits: Tensor) -> Tensor:
    """Convert to at least float32."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return logits.to(dtype)
