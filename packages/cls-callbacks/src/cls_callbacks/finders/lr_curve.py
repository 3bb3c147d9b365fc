"""Read a learning rate off the curve of a range test, or say why the curve shows none."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Curve = NDArray[np.float64]

MIN_STEPS = 30
"""About five points for each factor of ten between the default rates."""

_MIN_DESCENT = 0.05
"""Share of the first loss by which the smoothed loss has to fall."""

_MIN_STANDARD_ERRORS = 5
"""The smoothed loss has to fall by this many of its standard errors, which noise seldom does."""

_WINDOW = 0.1
"""Share of the points that a moving average covers."""

_EDGE = 0.1
"""Share of the points at either end where the steepest descent is not plausible."""


class ImplausibleCurveError(ValueError):
    """The curve shows no learning rate. The message says why, and what to change."""


def undo_exponential_smoothing(smoothed: Sequence[float], beta: float = 0.98) -> Curve:
    """Return the losses of which Lightning's range test keeps a running average.

    Its average lags behind by about 50 steps, half of a usual test, and so hides the descent.

    Args:
        smoothed: The average after each step, divided by 1 - beta^(n + 1) after n steps, as
            Lightning 2.6.6 does.
        beta: Its forgetting factor.
    """
    values = np.asarray(smoothed, np.float64)
    steps = np.arange(1, len(values) + 1)
    averages = values * (1 - beta ** (steps + 1))
    previous = np.concatenate([[0.0], averages[:-1]])
    return (averages - beta * previous) / (1 - beta)


def smooth(losses: Curve) -> Curve:
    """Return a centered moving average over a tenth of the points, which does not lag behind."""
    width = _window_width(len(losses))
    kernel = np.ones(width)
    sums = np.convolve(losses, kernel, mode="same")
    counts = np.convolve(np.ones(len(losses)), kernel, mode="same")
    return sums / counts


def _window_width(count: int) -> int:
    return min(count, 2 * int(_WINDOW * count / 2) + 1)


def find_steepest_rate(rates: Sequence[float], losses: Sequence[float], max_rate: float) -> float:
    """Return the learning rate at which the loss falls fastest, per factor of the rate.

    Args:
        rates: Increasing learning rates, one per step.
        losses: The training loss of each step, not smoothed.
        max_rate: The rate at which the test was meant to end.

    Raises:
        ImplausibleCurveError: There are too few steps, the loss does not fall, or it falls fastest
            at one end of the range.
    """
    is_finite = np.isfinite(losses)
    finite_losses = np.asarray(losses, np.float64)[is_finite]
    finite_rates = np.asarray(rates, np.float64)[is_finite]
    count = len(finite_losses)
    if count < MIN_STEPS:
        raise ImplausibleCurveError(
            f"the range test had {count} steps with a finite loss, and at least {MIN_STEPS} are "
            "needed; set more trainer.max_epochs, or a smaller data.batch_size"
        )

    curve = smooth(finite_losses)
    edge = int(_EDGE * count)
    lowest = int(curve.argmin())
    start = float(np.median(curve[:edge]))
    descent = start - float(curve[lowest])
    if lowest < edge or descent < _required_descent(finite_losses, curve, lowest, start):
        raise ImplausibleCurveError(
            f"the loss did not fall from {start:.3g} by at least {_MIN_DESCENT:.0%} and by more "
            "than its noise; check that the labels match the images, or test more steps"
        )
    is_complete = finite_rates[-1] > max_rate / 2
    if is_complete and lowest >= count - edge:
        raise ImplausibleCurveError(
            f"the loss was still falling at the highest rate, {finite_rates[-1]:.1g}; set a higher "
            "max_lr"
        )

    slopes = np.gradient(curve[: lowest + 1], np.log(finite_rates[: lowest + 1]))
    steepest = int(slopes.argmin())
    if steepest < edge:
        raise ImplausibleCurveError(
            f"the loss fell fastest at the lowest rates, near {finite_rates[0]:.1g}; set a lower "
            "min_lr"
        )
    return float(finite_rates[steepest])


def _required_descent(losses: Curve, curve: Curve, lowest: int, start: float) -> float:
    noise = float(np.std(losses[: lowest + 1] - curve[: lowest + 1]))
    standard_error = noise / math.sqrt(_window_width(len(losses)))
    return max(_MIN_DESCENT * abs(start), _MIN_STANDARD_ERRORS * standard_error)
