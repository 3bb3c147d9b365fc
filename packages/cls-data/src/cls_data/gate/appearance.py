"""Rules about how images look: those far from the others, and those that nobody could read."""

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cls_data.gate.config import GateConfig
from cls_data.gate.inputs import Finding, GateInputs, about

_LEAST_SPREAD: Final = float(np.log(1.25))


def outlying_sizes(evidence: GateInputs, config: GateConfig) -> Iterator[Finding]:
    """Find images far smaller or larger than the others, or with a very short side."""
    width, height = _sides(evidence)
    far = _far_out(np.log(width * height) / 2, config.outlying_fences)
    small = np.minimum(width, height) < config.smallest_side
    usual = round(float(np.median(np.sqrt(width * height)))) if len(width) else 0
    yield from _unusual(
        evidence, np.where(small, np.inf, far), f"usual are about {usual} px a side"
    )


def outlying_aspects(evidence: GateInputs, config: GateConfig) -> Iterator[Finding]:
    """Find images far narrower or wider than the others."""
    width, height = _sides(evidence)
    usual = float(np.median(width / height)) if len(width) else 0
    far = _far_out(np.log(width / height), config.outlying_fences)
    yield from _unusual(evidence, far, f"usual is a width of {usual:.2f} times the height")


def _sides(evidence: GateInputs) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    sizes = evidence.files.sizes[np.array(evidence.decoded, np.int64)].astype(np.float64)
    return sizes[:, 0], sizes[:, 1]


def _far_out(values: NDArray[np.float64], fences: float) -> NDArray[np.float64]:
    """Return how far each value lies beyond the fences, 0 for those within."""
    if not len(values):
        return values
    low, high = np.quantile(values, [0.25, 0.75])
    reach = fences * max(high - low, _LEAST_SPREAD)
    far: NDArray[np.float64] = np.maximum(
        0, np.maximum(values - high - reach, low - reach - values)
    )
    return far


def _unusual(evidence: GateInputs, far: NDArray[np.float64], usual: str) -> Iterator[Finding]:
    for place in np.flatnonzero(far).tolist():
        file = evidence.decoded[place]
        width, height = evidence.files.sizes[file].tolist()
        text = f"{width}x{height} px; {usual}"
        yield about(evidence.by_file[file], text, evidence.by_file[file], weight=float(far[place]))


def dark_images(evidence: GateInputs, config: GateConfig) -> Iterator[Finding]:
    """Find images of low mean luma."""
    luma = evidence.files.luma
    yield from _measured(evidence, luma, config.dark_under - luma, "mean luma {:.0f} of 255")


def bright_images(evidence: GateInputs, config: GateConfig) -> Iterator[Finding]:
    """Find images of high mean luma."""
    luma = evidence.files.luma
    yield from _measured(evidence, luma, luma - config.bright_over, "mean luma {:.0f} of 255")


def blurred_images(evidence: GateInputs, config: GateConfig) -> Iterator[Finding]:
    """Find images without sharp edges."""
    sharpness = evidence.files.sharpness
    yield from _measured(
        evidence, sharpness, config.blurred_under - sharpness, "variance of the Laplacian {:.1f}"
    )


def _measured(
    evidence: GateInputs, values: NDArray[np.float32], excess: NDArray[np.float32], text: str
) -> Iterator[Finding]:
    for file in evidence.decoded:
        if excess[file] > 0:
            rows = evidence.by_file[file]
            yield about(rows, text.format(values[file]), rows, weight=float(excess[file]))
