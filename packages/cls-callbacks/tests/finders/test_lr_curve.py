"""Suggestions of a range test: taken from a plausible curve only."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cls_callbacks.finders.lr_curve import (
    MIN_STEPS,
    ImplausibleCurveError,
    find_steepest_rate,
    undo_exponential_smoothing,
)

Curve = NDArray[np.float64]


def rates(count: int, low: float = 1e-6, high: float = 1.0) -> Curve:
    return np.geomspace(low, high, count)


def typical_losses(at: Curve, steepest: float) -> Curve:
    """A plateau, a fall around `steepest`, and a rise above 30 times that rate."""
    position = np.log(at / steepest)
    fall = 1.5 / (1 + np.exp(-2 * position))
    rise = np.exp(position - np.log(30)).clip(max=50)
    return 3 - fall + rise - rise[0]


@given(
    steepest=st.floats(1e-5, 1e-2),
    count=st.integers(60, 300),
    scale=st.floats(0.1, 10),
)
def test_suggestion_is_where_the_loss_falls_fastest(
    steepest: float, count: int, scale: float
) -> None:
    at = rates(count, 1e-7, 10)
    suggestion = find_steepest_rate(list(at), list(scale * typical_losses(at, steepest)), 10)
    assert steepest / 3 < suggestion < steepest * 3


@given(losses=st.lists(st.floats(0, 100), min_size=1, max_size=50))
def test_smoothing_of_lightning_is_undone(losses: list[float]) -> None:
    average, smoothed = 0.0, []
    for step, loss in enumerate(losses, start=1):
        average = 0.98 * average + 0.02 * loss
        smoothed.append(average / (1 - 0.98 ** (step + 1)))
    np.testing.assert_allclose(undo_exponential_smoothing(smoothed), losses, atol=1e-9)


@pytest.mark.parametrize("noise", [0.05, 0.5, 2.0])
def test_noise_gives_no_suggestion(noise: float) -> None:
    suggestions = 0
    for seed in range(50):
        losses = 3.7 + noise * np.random.default_rng(seed).standard_normal(100)
        try:
            find_steepest_rate(list(rates(100)), list(losses), 1.0)
            suggestions += 1
        except ImplausibleCurveError:
            pass
    assert suggestions <= 2


def test_losses_that_are_not_finite_are_left_out() -> None:
    at = rates(100)
    losses = typical_losses(at, 1e-3)
    losses[-5:] = np.nan
    assert 3e-4 < find_steepest_rate(list(at), list(losses), 1.0) < 3e-3


@given(count=st.integers(1, MIN_STEPS - 1))
def test_too_few_steps_give_no_suggestion(count: int) -> None:
    at = rates(count)
    with pytest.raises(ImplausibleCurveError, match=rf"had {count} steps .* at least 30"):
        find_steepest_rate(list(at), list(typical_losses(at, 1e-3)), 1.0)


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        (np.full(100, 3.7), "did not fall from .* by at least 5%"),
        (np.linspace(3.7, 9.0, 100), "did not fall from .* by at least 5%"),
        (3.7 + 0.01 * np.sin(np.arange(100)), "did not fall from .* by at least 5%"),
        (np.linspace(3.7, 1.0, 100), "still falling at the highest rate, 1; set a higher max_lr"),
        (
            1 + 3 * np.exp(-np.arange(100) / 8) + np.exp(np.arange(100) / 5 - 18),
            "fastest at the lowest rates, near 1e-06; set a lower min_lr",
        ),
        (np.full(100, np.nan), "had 0 steps with a finite loss"),
    ],
    ids=["flat", "rising", "noise", "falling to the end", "falling at the start", "NaN"],
)
def test_implausible_curve_gives_no_suggestion(losses: Curve, expected: str) -> None:
    with pytest.raises(ImplausibleCurveError, match=expected):
        find_steepest_rate(list(rates(100)), list(losses), 1.0)
