"""The evaluation of one split: predictions and everything that reports derive from them."""

from dataclasses import dataclass
from functools import cached_property

from cls_data import Predictions
from cls_export.contract.calibration import Calibration, softmax
from cls_report.errors import CalibrationError
from cls_report.statistics.calibration import estimate_calibration_error
from cls_report.statistics.calibration_fitting import FITS, cross_fit
from cls_report.statistics.estimates import Estimate
from cls_report.statistics.evaluated_predictions import EvaluatedPredictions
from cls_report.statistics.intervals import Clusters, Floats
from cls_report.statistics.scores import EvaluationScores, compute_scores
from cls_report.statistics.slices import Slice, slice_predictions


@dataclass(frozen=True)
class Evaluation:
    """One split of a run. Scores and slices are computed on first use, and once.

    Attributes:
        softmax: The predictions with the softmax as confidence.
        calibrated: The same with calibrated confidence; None without a calibration.
    """

    split: str
    predictions: Predictions
    softmax: EvaluatedPredictions
    calibrated: EvaluatedPredictions | None = None

    @classmethod
    def from_predictions(
        cls, split: str, predictions: Predictions, calibration: Calibration | None = None
    ) -> "Evaluation":
        """Evaluate the predictions for one split.

        The calibration was fitted on the split `valid`. That split itself is therefore evaluated
        with a cross-fitted calibration.
        """
        softmax_confidence = EvaluatedPredictions.from_predictions(predictions)
        calibrated = None
        probabilities = _calibrated_probabilities(split, predictions, calibration)
        if probabilities is not None:
            calibrated = EvaluatedPredictions.from_predictions(predictions, probabilities)

        return cls(split, predictions, softmax_confidence, calibrated)

    @cached_property
    def scores(self) -> EvaluationScores:
        """All metrics, for the softmax."""
        return compute_scores(self.softmax)

    @cached_property
    def calibrated_error(self) -> Estimate | None:
        """The expected calibration error after calibration; None without a calibration."""
        evaluated = self.calibrated
        if evaluated is None:
            return None
        return estimate_calibration_error(
            evaluated.confidence, evaluated.correct, evaluated.clusters
        )

    @cached_property
    def slices(self) -> dict[str, tuple[Slice, ...]]:
        """Slices of the images by key."""
        return slice_predictions(self.predictions)

    @property
    def by_confidence(self) -> dict[str, EvaluatedPredictions]:
        """The predictions with each kind of confidence, by its name."""
        kinds = {"softmax": self.softmax}
        if self.calibrated is not None:
            kinds["calibrated"] = self.calibrated
        return kinds


def _calibrated_probabilities(
    split: str, predictions: Predictions, calibration: Calibration | None
) -> Floats | None:
    """Return calibrated probabilities [N, C] of images that the calibration was not fitted on."""
    if calibration is None:
        return None
    if split != "valid":
        return softmax(calibration.apply(predictions.logits))

    groups = Clusters.from_groups(predictions.groups).index
    fit = FITS[calibration.method]
    try:
        return cross_fit(predictions.logits, predictions.labels, fit, groups=groups)
    except CalibrationError:
        return None
