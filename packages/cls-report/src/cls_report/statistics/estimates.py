"""Estimates with confidence intervals."""

from pydantic import BaseModel, ConfigDict


class Estimate(BaseModel):
    """A value with its 95% confidence interval; None for what the images do not determine.

    For example, the recall of a class without images has no value.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: float | None
    low: float | None = None
    high: float | None = None


def format_percent(estimate: Estimate) -> str:
    """Return a share with its interval, such as `89.0% (85.4-91.8)`."""
    if estimate.value is None:
        return "-"

    text = f"{estimate.value:.1%}"
    if estimate.low is None or estimate.high is None:
        return text

    low = 100 * estimate.low
    high = 100 * estimate.high
    return f"{text} ({low:.1f}-{high:.1f})"


def format_points(difference: Estimate) -> str:
    """Return a difference of shares in percentage points, such as `+1.1 (-0.8 to +3.0) points`."""
    if difference.value is None:
        return "-"
    points = 100 * difference.value
    if difference.low is None or difference.high is None:
        return f"{points:+.1f} points"

    low = 100 * difference.low
    high = 100 * difference.high
    return f"{points:+.1f} ({low:+.1f} to {high:+.1f}) points"
