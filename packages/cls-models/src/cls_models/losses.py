"""Losses that PyTorch does not ship; `torch.nn.CrossEntropyLoss` is the default and stands beside them.

Shapes: B images in a batch, C classes. Each maps logits float [B, C] and either labels int64 [B] or soft targets
float [B, C], whose rows sum to 1 (mixup, cutmix), to a scalar, computed in float32 at least.

No loss here adds to a state_dict: what it holds comes from the training data, not from training. PyTorch's
`CrossEntropyLoss(weight=...)` does add its `weight`.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class FocalLoss(nn.Module):
    """Cross-entropy that counts a sample the less, the surer the model is of it already.

    The loss of one sample is the sum over the classes c of -t_c w_c (1 - p_c)^gamma log p_c. For a plain label this is
    Lin et al. 2017, "Focal Loss for Dense Object Detection", arXiv:1708.02002, equation 5. It is linear in the
    target t, so a mixed sample costs the mixture of its two losses, and smoothing mixes with the uniform target. The
    focusing factor looks at the softmax p alone; neither weights nor smoothing enter it.

    The mean over the batch is PyTorch's own: with labels, the sum is divided by the weights of the labels; with soft
    targets, by B. So with weights, one-hot targets give the loss of the labels times their mean weight, as they do in
    `torch.nn.CrossEntropyLoss`; with gamma 0 all is equal to that.

    Args:
        gamma: 0 or more; 0 is cross-entropy. The paper found 2 best.
        weight: of each class, [C], above 0.
        label_smoothing: share of the target that is spread evenly over all classes, 0 to below 1.

    Raises:
        ValueError: a setting is out of range, or the logits and targets do not fit each other or the weights.
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
        self.label_smoothing = _checked_smoothing(label_smoothing)
        values = (
            None
            if weight is None
            else _positive_per_class(weight, "weight", "leave the class out of the data")
        )
        self.register_buffer("weight", None if values is None else values.float(), persistent=False)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of a batch in nats."""
        _check_shapes(logits, targets, self.weight, "weight")
        log_p = _at_least_float32(logits).log_softmax(dim=1)
        # Not quite 0, where the slope of a power below 1 is infinite. log_p is 0 there, so nothing is lost.
        doubt = (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).tiny)
        return self._mean(-(doubt**self.gamma) * log_p, targets)

    def _mean(self, terms: Tensor, targets: Tensor) -> Tensor:
        """Reduce what each class would cost if it were the label, [B, C], to the mean loss."""
        divisor: Tensor | int = len(terms)
        weight = None if self.weight is None else self.weight.to(terms.dtype)
        if weight is not None:
            terms = terms * weight
        if targets.is_floating_point():
            total = (targets * terms).sum()
        else:
            total = terms.gather(1, targets[:, None]).sum()
            divisor = divisor if weight is None else weight[targets].sum()
        if self.label_smoothing:
            total = (1 - self.label_smoothing) * total + self.label_smoothing * terms.mean(
                dim=1
            ).sum()
        return total / divisor

    def extra_repr(self) -> str:
        """Show the settings."""
        weighted = "" if self.weight is None else f", weight=[{len(self.weight)} classes]"
        return f"gamma={self.gamma}, label_smoothing={self.label_smoothing}{weighted}"


class LogitAdjustedLoss(nn.Module):
    """Cross-entropy of logits + tau log(prior), for long tails: what is learned suits classes of equal frequency.

    The logit adjusted softmax cross-entropy of Menon et al. 2021, "Long-tail learning via logit adjustment",
    arXiv:2007.07314. In training mode alone; in evaluation mode it is the plain cross-entropy, since the logits
    themselves are what is deployed.

    It corrects the imbalance, so neither class weights nor a balancing sampler belongs beside it.

    Args:
        class_counts: training samples of each class, [C], above 0; at least 2 classes.
        tau: strength of the adjustment, 0 (none) or more; 1 is consistent with the balanced error.
        label_smoothing: share of the target that is spread evenly over all classes, 0 to below 1.

    Raises:
        ValueError: a setting is out of range, or the logits and targets do not fit each other or the counts.
    """

    adjustment: Tensor

    def __init__(
        self, class_counts: Tensor | Sequence[float], tau: float = 1.0, label_smoothing: float = 0.0
    ) -> None:
        super().__init__()
        if not 0 <= tau < math.inf:
            raise ValueError(f"tau must be 0 (no adjustment) or more, got {tau}")
        self.tau = tau
        self.label_smoothing = _checked_smoothing(label_smoothing)
        advice = "its prior would be 0 and its logarithm infinite; add samples of the class or leave it out"
        counts = _positive_per_class(class_counts, "class_counts", advice)
        if len(counts) < 2:
            raise ValueError(f"class_counts must have at least 2 classes, got {len(counts)}")
        self.register_buffer(
            "adjustment", (tau * (counts / counts.sum()).log()).float(), persistent=False
        )

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of a batch in nats."""
        _check_shapes(logits, targets, self.adjustment, "class_counts")
        logits = _at_least_float32(logits)
        if self.training:
            logits = logits + self.adjustment
        return functional.cross_entropy(logits, targets, label_smoothing=self.label_smoothing)

    def extra_repr(self) -> str:
        """Show the settings."""
        return f"tau={self.tau}, label_smoothing={self.label_smoothing}, {len(self.adjustment)} classes"


def _checked_smoothing(label_smoothing: float) -> float:
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing must be 0 or more and below 1, got {label_smoothing}")
    return label_smoothing


def _positive_per_class(values: Tensor | Sequence[float], name: str, advice: str) -> Tensor:
    """Return float64 [C] on the CPU, or say which classes have a value that is not above 0 and finite."""
    tensor = torch.as_tensor(values, device="cpu").detach().to(torch.float64)
    if tensor.ndim != 1 or not len(tensor):
        raise ValueError(
            f"{name} must hold one number for each class, so be of shape [C]; got {list(tensor.shape)}"
        )
    wrong = (~((tensor > 0) & tensor.isfinite())).nonzero().flatten().tolist()
    if wrong:
        given = ", ".join(f"{tensor[index]:g} for class {index}" for index in wrong[:5])
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise ValueError(f"{name} must be above 0 and finite, got {given}{more}; {advice}")
    return tensor


def _check_shapes(logits: Tensor, targets: Tensor, per_class: Tensor | None, name: str) -> None:
    """Refuse what broadcasting would accept in silence."""
    if logits.ndim != 2:
        raise ValueError(f"logits must be of shape [B, C], got {list(logits.shape)}")
    expected = logits.shape if targets.is_floating_point() else logits.shape[:1]
    if targets.shape != expected:
        raise ValueError(
            f"logits {list(logits.shape)} need labels int64 {list(logits.shape[:1])} or soft targets float "
            f"{list(logits.shape)}, got {targets.dtype} {list(targets.shape)}"
        )
    if per_class is not None and len(per_class) != logits.shape[1]:
        raise ValueError(
            f"{name} is of {len(per_class)} classes, but the logits are of {logits.shape[1]}"
        )


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
