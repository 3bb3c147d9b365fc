"""Gate rules about the appearance of images: size, aspect ratio, brightness, and sharpness."""

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cls_data.gate.config import GateConfig
from cls_data.gate.inputs import Finding, GateInputs

_MIN_IQR: Final = float(np.log(1.25))
"""A factor of 1.25; the interquartile range of a set whose images have nearly one size."""


def outlying_sizes(inputs: GateInputs, config: GateConfig) -> Iterator[Finding]:
    """Find images much smaller or larger than the others, or with a very short side."""
    width, height = _sides(inputs)
    if len(width) == 0:
        return
    log_side = np.log(width * height) / 2
    distance = _outlier_distance(log_side, config.outlying_fences)
    is_small = np.minimum(width, height) < config.smallest_side
    distance = np.where(is_small, np.inf, distance)

    median = float(np.median(np.sqrt(width * height)))
    usual = f"the median side is {round(median)} px"
    yield from _size_findings(inputs, distance, usual)


def outlying_aspects(inputs: GateInputs, config: GateConfig) -> Iterator[Finding]:
    """Find images much narrower or wider than the others."""
    width, height = _sides(inputs)
    if len(width) == 0:
        return
    aspect = width / height
    distance = _outlier_distance(np.log(aspect), config.outlying_fences)
    median = float(np.median(aspect))
    usual = f"the median ratio of width to height is {median:.2f}"
    yield from _size_findings(inputs, distance, usual)


def _sides(inputs: GateInputs) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the widths and heights of the decoded files, in pixels."""
    decoded = np.array(inputs.decoded_files, np.int64)
    sizes = inputs.files.sizes[decoded]
    width, height = sizes.astype(np.float64).T
    return width, height


def _outlier_distance(values: NDArray[np.float64], fences: float) -> NDArray[np.float64]:
    """Return the distance of each value beyond Tukey's fences; 0 for values between them."""
    lower_quartile, upper_quartile = np.quantile(values, [0.25, 0.75])
    iqr = max(upper_quartile - lower_quartile, _MIN_IQR)
    reach = fences * iqr

    excess = values - upper_quartile - reach
    deficit = lower_quartile - reach - values
    distance: NDArray[np.float64] = np.maximum(excess, deficit)
    return distance.clip(min=0)


def _size_findings(
    inputs: GateInputs, distance: NDArray[np.float64], usual: str
) -> Iterator[Finding]:
    for index in np.flatnonzero(distance).tolist():
        file = inputs.decoded_files[index]
        rows = inputs.rows_by_file[file]
        width, height = inputs.files.sizes[file].tolist()
        yield Finding.from_rows(
            rows,
            f"{width}x{height} px, but {usual}",
            "check the crop",
            quarantine=rows,
            severity=float(distance[index]),
        )


def dark_images(inputs: GateInputs, config: GateConfig) -> Iterator[Finding]:
    """Find images with a low mean luma."""
    luma = inputs.files.luma
    problem = f"mean luma {{:.0f}} is below {config.dark_under:g} (0 to 255)"
    yield from _threshold_findings(inputs, luma, config.dark_under - luma, problem)


def bright_images(inputs: GateInputs, config: GateConfig) -> Iterator[Finding]:
    """Find images with a high mean luma."""
    luma = inputs.files.luma
    problem = f"mean luma {{:.0f}} is above {config.bright_over:g} (0 to 255)"
    yield from _threshold_findings(inputs, luma, luma - config.bright_over, problem)


def blurred_images(inputs: GateInputs, config: GateConfig) -> Iterator[Finding]:
    """Find images without sharp edges."""
    sharpness = inputs.files.sharpness
    problem = f"blurred: Laplacian variance {{:.1f}} is below {config.blurred_under:g}"
    yield from _threshold_findings(inputs, sharpness, config.blurred_under - sharpness, problem)


def _threshold_findings(
    inputs: GateInputs, values: NDArray[np.float32], excess: NDArray[np.float32], problem: str
) -> Iterator[Finding]:
    """Yield a finding for each decoded file whose value exceeds its limit."""
    for file in inputs.decoded_files:
        if excess[file] <= 0:
            continue
        rows = inputs.rows_by_file[file]
        yield Finding.from_rows(
            rows,
            problem.format(values[file]),
            "remove the row if the image is not legible",
            quarantine=rows,
            severity=float(excess[file]),
        )
