import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from cls_models.losses import FocalLoss, LogitAdjustedLoss, get_weight_sum

smoothings = st.one_of(st.just(0.0), st.floats(0.01, 0.9))
gammas = st.one_of(st.just(0.0), st.floats(0.05, 6))


@st.composite
def batches(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw logits and soft targets float64 [B, C], labels int64 [B], and weights float32 [C]."""
    count, classes = draw(st.integers(1, 6)), draw(st.integers(2, 7))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    logits = draw(st.floats(0.1, 15)) * torch.randn(
        count, classes, generator=generator, dtype=torch.float64
    )
    labels = torch.randint(classes, (count,), generator=generator)
    soft = torch.rand(count, classes, generator=generator, dtype=torch.float64)
    weights = 0.05 + 3 * torch.rand(classes, generator=generator)
    return logits, labels, soft / soft.sum(dim=1, keepdim=True), weights


def one_hot(labels: Tensor, classes: int) -> Tensor:
    return functional.one_hot(labels, classes).double()


def focal_by_hand(
    logits: Tensor, targets: Tensor, gamma: float, weights: list[float], smoothing: float
) -> float:
    """Return the sum over samples and classes, term by term."""
    total = 0.0
    for row, target in zip(logits.tolist(), targets.tolist(), strict=True):
        powers = [math.exp(value - max(row)) for value in row]
        for number, power in enumerate(powers):
            share = (1 - smoothing) * target[number] + smoothing / len(row)
            others = (sum(powers) - power) / sum(powers)
            log_p = row[number] - max(row) - math.log(sum(powers))
            total -= share * weights[number] * others**gamma * log_p
    return total


@given(batch=batches(), gamma=gammas, smoothing=smoothings, weighted=st.booleans())
@settings(deadline=None)
def test_focal_loss_follows_the_formula(
    batch: Any, gamma: float, smoothing: float, weighted: bool
) -> None:
    logits, labels, soft, weights = batch
    loss = FocalLoss(gamma, weights if weighted else None, smoothing)
    by_class = weights.double().tolist() if weighted else [1.0] * len(weights)
    hard = focal_by_hand(logits, one_hot(labels, len(weights)), gamma, by_class, smoothing)
    assert loss(logits, labels).item() == pytest.approx(
        hard / sum(by_class[label] for label in labels), abs=1e-9
    )
    mixed = focal_by_hand(logits, soft, gamma, by_class, smoothing)
    assert loss(logits, soft).item() == pytest.approx(mixed / len(labels), abs=1e-9)


@given(batch=batches(), smoothing=smoothings, weighted=st.booleans(), mixed=st.booleans())
@settings(deadline=None)
def test_focal_loss_equals_cross_entropy_when_gamma_is_zero(
    batch: Any, smoothing: float, weighted: bool, mixed: bool
) -> None:
    logits, labels, soft, weights = batch
    weight = weights if weighted else None
    targets = soft if mixed else labels
    theirs = nn.CrossEntropyLoss(
        None if weight is None else weight.double(), label_smoothing=smoothing
    )
    values, gradients = [], []
    for loss in (FocalLoss(0.0, weight, smoothing), theirs):
        leaf = logits.clone().requires_grad_()
        values.append(loss(leaf, targets))
        gradients.append(torch.autograd.grad(values[-1], leaf)[0])
    assert torch.allclose(*values, rtol=1e-12, atol=1e-12)
    assert torch.allclose(*gradients, rtol=1e-12, atol=1e-12)


@given(batch=batches(), gamma=gammas, smoothing=smoothings)
@settings(deadline=None)
def test_one_hot_targets_give_the_loss_of_labels(
    batch: Any, gamma: float, smoothing: float
) -> None:
    logits, labels, _, weights = batch
    targets = one_hot(labels, len(weights))
    for loss in (
        FocalLoss(gamma, None, smoothing),
        LogitAdjustedLoss(weights, label_smoothing=smoothing),
    ):
        assert torch.allclose(loss(logits, targets), loss(logits, labels), atol=1e-12)


@given(batch=batches(), gamma=gammas)
@settings(deadline=None)
def test_weighted_one_hot_targets_differ_by_the_mean_weight_like_pytorch(
    batch: Any, gamma: float
) -> None:
    logits, labels, _, weights = batch
    targets, mean = one_hot(labels, len(weights)), weights[labels].double().mean()
    for loss in (FocalLoss(gamma, weights), nn.CrossEntropyLoss(weights.double())):
        assert torch.allclose(loss(logits, targets), mean * loss(logits, labels), rtol=1e-6)


@given(batch=batches(), gamma=gammas, share=st.floats(0, 1))
@settings(deadline=None)
def test_loss_of_a_mixed_sample_is_the_mixture_of_losses(
    batch: Any, gamma: float, share: float
) -> None:
    logits, labels, soft, weights = batch
    hard = one_hot(labels, len(weights))
    loss = FocalLoss(gamma, weights, 0.1)
    expected = share * loss(logits, hard) + (1 - share) * loss(logits, soft)
    assert torch.allclose(loss(logits, share * hard + (1 - share) * soft), expected, atol=1e-12)


@given(batch=batches(), gamma=gammas, factor=st.floats(0.1, 10))
@settings(deadline=None)
def test_focal_loss_depends_only_on_relative_weights(
    batch: Any, gamma: float, factor: float
) -> None:
    logits, labels, _, weights = batch
    expected = FocalLoss(gamma, weights)(logits, labels)
    assert torch.allclose(FocalLoss(gamma, factor * weights)(logits, labels), expected, rtol=1e-5)


def test_focusing_factor_ignores_weights_and_smoothing() -> None:
    """A correct sample with p 0.9 counts (1 - 0.9)^2 of its cross-entropy at any weight."""
    logits, labels = torch.tensor([[0.9, 0.1]]).log(), torch.tensor([0])
    for weight in (None, [1.0, 1.0], [7.0, 1.0]):
        assert FocalLoss(2.0, weight)(logits, labels).item() == pytest.approx(
            -0.01 * math.log(0.9), rel=1e-4
        )
    smoothed = -0.01 * 0.9 * math.log(0.9) - 0.81 * 0.1 * math.log(0.1)
    assert FocalLoss(2.0, None, 0.2)(logits, labels).item() == pytest.approx(smoothed, rel=1e-5)


@given(batch=batches(), tau=st.floats(0, 3), smoothing=smoothings)
@settings(deadline=None)
def test_logit_adjusted_loss_follows_the_formula(batch: Any, tau: float, smoothing: float) -> None:
    logits, labels, soft, weights = batch
    counts = (100 * weights).round()
    loss = LogitAdjustedLoss(counts, tau, smoothing)
    shares = counts.double().numpy() / float(counts.sum())
    log_p = torch.log(functional.softmax(logits, dim=1) * torch.from_numpy(shares**tau))
    log_p = log_p - log_p.exp().sum(dim=1, keepdim=True).log()
    for targets, given_targets in ((one_hot(labels, len(counts)), labels), (soft, soft)):
        spread = (1 - smoothing) * targets + smoothing / len(counts)
        expected = -(spread * log_p).sum(dim=1).mean()
        assert loss(logits, given_targets).item() == pytest.approx(
            expected.item(), rel=1e-5, abs=1e-6
        )


@given(batch=batches())
@settings(deadline=None)
def test_logit_adjusted_loss_is_cross_entropy_in_evaluation_mode(batch: Any) -> None:
    logits, labels, soft, weights = batch
    loss = LogitAdjustedLoss(weights, label_smoothing=0.1).eval()
    for targets in (labels, soft):
        expected = functional.cross_entropy(logits, targets, label_smoothing=0.1)
        assert torch.allclose(loss(logits, targets), expected)
    even = LogitAdjustedLoss(torch.full_like(weights, 7))
    assert torch.allclose(even(logits, labels), functional.cross_entropy(logits, labels))


def test_logit_adjusted_loss_learns_logits_for_equal_frequencies() -> None:
    """The best logits are equal for an image with 9 labels of one class and 1 of another."""
    labels = torch.tensor([0] * 9 + [1])
    logits = nn.Parameter(torch.tensor([2.0, -1.0]))
    optimizer = torch.optim.LBFGS([logits], max_iter=50)
    loss = LogitAdjustedLoss(labels.bincount())

    def closure() -> Tensor:
        optimizer.zero_grad()
        value: Tensor = loss(logits.expand(10, 2), labels)
        value.backward()
        return value

    optimizer.step(closure)
    assert logits[0].item() == pytest.approx(logits[1].item(), abs=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("gamma", [0.0, 0.01, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("mixed", [False, True])
def test_losses_and_gradients_are_finite_for_extreme_logits(
    dtype: torch.dtype, gamma: float, mixed: bool
) -> None:
    rows = [[6e4, -6e4, 0.0], [-6e4, 6e4, 6e4], [0.0, 0.0, 0.0], [30.0, 0.0, 0.0], [1e-4, 0.0, 0.0]]
    labels = torch.zeros(len(rows), dtype=torch.int64)
    targets = torch.tensor([0.6, 0.4, 0.0]).expand(len(rows), 3) if mixed else labels
    losses = [
        FocalLoss(gamma, weight, smoothing)
        for weight in (None, [1, 2, 3])
        for smoothing in (0.0, 0.1)
    ]
    for loss in (*losses, LogitAdjustedLoss([1, 10, 100_000], 2.0)):
        logits = torch.tensor(rows, dtype=dtype, requires_grad=True)
        value = loss(logits, targets)
        value.backward()
        assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert value.isfinite()
        assert logits.grad is not None
        assert logits.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "loss", [FocalLoss(2.0, [1, 2, 3], 0.1), LogitAdjustedLoss([1, 2, 3], 1.0, 0.1)]
)
def test_losses_compute_half_precision_logits_in_float32(
    dtype: torch.dtype, loss: nn.Module
) -> None:
    torch.manual_seed(0)
    logits = (5 * torch.randn(4, 3)).to(dtype)
    for targets in (torch.tensor([0, 1, 2, 1]), torch.rand(4, 3).softmax(dim=1)):
        assert torch.equal(loss(logits, targets), loss(logits.float(), targets))
        with torch.autocast("cpu", dtype=dtype):
            assert torch.equal(loss(logits, targets), loss(logits.float(), targets))


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_loss_gradient_equals_finite_differences(gamma: float) -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    for targets in (torch.tensor([0, 3, 1]), torch.rand(3, 4, dtype=torch.float64).softmax(dim=1)):
        assert torch.autograd.gradcheck(FocalLoss(gamma, None, 0.1), (logits, targets))


def test_loss_buffers_move_with_the_module_but_are_not_in_its_state_dict() -> None:
    for loss in (FocalLoss(weight=[1, 2]), LogitAdjustedLoss([1, 2])):
        assert not loss.state_dict()
        assert not list(loss.parameters())
        assert [buffer.device.type for buffer in loss.to("meta").buffers()] == ["meta"]
    assert set(nn.CrossEntropyLoss(weight=torch.ones(2)).state_dict()) == {"weight"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gamma": -0.1}, "gamma must be 0 .* or more, got -0.1"),
        ({"gamma": math.nan}, "gamma must be 0 .* or more, got nan"),
        ({"label_smoothing": 1.0}, "label_smoothing must be 0 or more and below 1, got 1.0"),
        ({"label_smoothing": -0.1}, "label_smoothing must be"),
        (
            {"weight": [[1.0, 2.0]]},
            r"weight must have shape \[C\], one number per class; got \[1, 2\]",
        ),
        ({"weight": []}, r"weight must have shape.*got \[0\]"),
        (
            {"weight": [1.0, 0.0, -2.0]},
            "above 0 and finite, got 0 for class 1, -2 for class 2; remove the class",
        ),
        ({"weight": [0.0] * 7}, "0 for class 4 and 2 more"),
    ],
)
def test_focal_loss_rejects_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FocalLoss(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"class_counts": [5, 0, 3]},
            "class_counts must be above 0 and finite, got 0 for class 1; add samples of the class",
        ),
        ({"class_counts": torch.tensor([1.0, math.inf])}, "got inf for class 1"),
        ({"class_counts": [5]}, "at least 2 classes, got 1"),
        ({"class_counts": torch.ones(2, 2)}, r"must have shape \[C\], .*got \[2, 2\]"),
        ({"class_counts": [1, 2], "tau": -1.0}, "tau must be 0 .* or more, got -1.0"),
        (
            {"class_counts": [1, 2], "label_smoothing": 2},
            "label_smoothing must be 0 or more and below 1, got 2",
        ),
    ],
)
def test_logit_adjusted_loss_rejects_settings_out_of_range(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        LogitAdjustedLoss(**settings)


@pytest.mark.parametrize("loss", [FocalLoss(weight=[1, 2, 3]), LogitAdjustedLoss([1, 2, 3])])
@pytest.mark.parametrize(
    ("logits", "targets", "message"),
    [
        (torch.zeros(2, 4), torch.tensor([0, 1]), "has 3 classes, but the logits have 4"),
        (torch.zeros(3), torch.tensor(0), r"logits must have shape \[B, C\], got \[3\]"),
        (
            torch.zeros(2, 3),
            torch.tensor([0]),
            r"labels int64 \[2\] or soft targets float \[2, 3\], got torch.int64 \[1\]",
        ),
        (torch.zeros(2, 3), torch.zeros(3), r"got torch.float32 \[3\]"),
        (torch.zeros(2, 3), torch.zeros(1, 3), r"got torch.float32 \[1, 3\]"),
    ],
)
def test_losses_reject_mismatched_shapes(
    loss: nn.Module, logits: Tensor, targets: Tensor, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        loss(logits, targets)


def test_loss_repr_shows_settings() -> None:
    assert (
        repr(FocalLoss(1.5, [1, 2]))
        == "FocalLoss(gamma=1.5, label_smoothing=0.0, weight=[2 classes])"
    )
    assert (
        repr(LogitAdjustedLoss([1, 2]))
        == "LogitAdjustedLoss(tau=1.0, label_smoothing=0.0, 2 classes)"
    )


@given(batches(), st.booleans(), st.booleans(), smoothings)
def test_means_of_two_shares_weighted_by_their_weight_sums_are_the_mean_of_the_batch(
    batch: tuple[Tensor, Tensor, Tensor, Tensor],
    is_focal: bool,
    has_weights: bool,
    smoothing: float,
) -> None:
    logits, labels, _, weights = batch
    loss_class: Any = FocalLoss if is_focal else nn.CrossEntropyLoss
    weight = weights.double() if has_weights else None
    loss = loss_class(weight=weight, label_smoothing=smoothing).double()
    total, divisors = 0.0, 0.0
    for rows in (slice(0, None, 2), slice(1, None, 2)):
        if len(labels[rows]):
            weight_sum = get_weight_sum(loss, labels[rows])
            assert (weight_sum is None) == (weight is None)
            divisor = len(labels[rows]) if weight_sum is None else float(weight_sum)
            total += float(loss(logits[rows], labels[rows])) * divisor
            divisors += divisor
    assert total / divisors == pytest.approx(float(loss(logits, labels)), rel=1e-6, abs=1e-9)


def test_soft_targets_and_sums_are_not_divided_by_weights() -> None:
    weight = torch.tensor([1.0, 5.0])
    soft = torch.tensor([[0.5, 0.5]])
    labels = torch.tensor([1])
    assert get_weight_sum(nn.CrossEntropyLoss(weight), soft) is None
    assert get_weight_sum(nn.CrossEntropyLoss(weight, reduction="sum"), labels) is None
    assert get_weight_sum(nn.Identity(), labels) is None
