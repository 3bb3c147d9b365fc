"""A calibration of few images follows chance; one of many images improves the confidence."""

import numpy as np
import pytest
from numpy.typing import NDArray

from cls_export.contract.calibration import softmax
from cls_report.errors import CalibrationError
from cls_report.statistics.calibration import expected_calibration_error
from cls_report.statistics.calibration_fitting import FITS
from cls_report.statistics.calibration_gain import measure_gain
from cls_report.statistics.intervals import Clusters

CLASSES = 4
ROUNDS = 40


def draw(
    images: int, scale: float, generator: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Draw logits, and labels from softmax(scale * logits); below 1, logits are overconfident."""
    logits = generator.normal(0, 3, (images, CLASSES))
    probabilities = softmax(scale * logits)
    labels = (probabilities.cumsum(axis=1) > generator.random((images, 1))).argmax(axis=1)
    return logits, labels


def true_error(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    confidence = softmax(logits).max(axis=1)
    return expected_calibration_error(confidence, logits.argmax(axis=1) == labels)


@pytest.mark.parametrize("scale", [0.7, 1.0, 1.3])
@pytest.mark.parametrize("images", [24, 48])
def test_the_true_error_does_not_grow_with_a_few_dozen_images(scale: float, images: int) -> None:
    generator = np.random.default_rng(images)
    others = draw(4000, scale, generator)
    uncalibrated = true_error(*others)
    fit = FITS["temperature"]
    grown_if_always = 0
    grown = 0
    errors = []
    for _ in range(ROUNDS):
        logits, labels = draw(images, scale, generator)
        error = uncalibrated
        try:
            calibration = fit(logits, labels)
            fitted_error = true_error(calibration.apply(others[0]), others[1])
            grown_if_always += fitted_error > uncalibrated
            if measure_gain(logits, labels, fit).is_significant:
                error = fitted_error
        except CalibrationError:
            pass
        errors.append(error)
        grown += error > uncalibrated

    assert grown <= 2
    assert np.mean(errors) <= uncalibrated + 0.002
    assert grown_if_always > grown  # so the rule does something


@pytest.mark.parametrize("method", ["temperature", "vector"])
@pytest.mark.parametrize("scale", [0.6, 2.5])
def test_large_sets_keep_a_calibration_that_helps(method: str, scale: float) -> None:
    logits, labels = draw(2000, scale, np.random.default_rng(0))
    gain = measure_gain(logits, labels, FITS[method])
    assert gain.is_significant
    assert gain.mean > 0.01
    assert gain.images == 2000


def test_a_calibrated_network_stays_as_it_is_however_many_images() -> None:
    logits, labels = draw(20_000, 1.0, np.random.default_rng(0))
    gain = measure_gain(logits, labels, FITS["temperature"])
    assert not gain.is_significant
    assert gain.describe().startswith("no improvement (cross-validated on 20000 images, the log-")


def test_dependent_images_count_less() -> None:
    logits, labels = draw(40, 0.7, np.random.default_rng(0))
    copies = 25
    logits, labels = logits.repeat(copies, axis=0), labels.repeat(copies)
    clusters = Clusters(np.arange(len(labels)) // copies, 40)
    alone = measure_gain(logits, labels, FITS["temperature"])
    grouped = measure_gain(logits, labels, FITS["temperature"], clusters)
    assert grouped.standard_error > 4 * alone.standard_error
    assert alone.is_significant
    assert not grouped.is_significant
    assert grouped.describe().startswith("too few images to tell an improvement from chance (")


def test_fewer_than_ten_mistakes_are_too_few() -> None:
    logits = np.tile(np.eye(3) * 5, (100, 1))
    labels = np.tile(np.arange(3), 100)
    labels[:9] = (labels[:9] + 1) % 3
    with pytest.raises(
        CalibrationError,
        match=r"too few images \(9 of 300 predictions are incorrect, .* at least 10",
    ):
        measure_gain(logits, labels, FITS["temperature"])
