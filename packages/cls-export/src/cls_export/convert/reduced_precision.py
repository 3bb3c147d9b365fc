"""Convert a float32 bundle to reduced precision, unless it costs too much accuracy.

Does not need PyTorch.
"""

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from cls_export.bundle.golden import (
    MAX_TOLERANCE,
    GoldenSet,
    allowed_difference,
    read_golden_image,
)
from cls_export.bundle.model_card import write_model_card
from cls_export.bundle.staging import staged_bundle
from cls_export.contract.bundle_layout import GOLDEN_FILE, GOLDEN_FOLDER, MODEL_FILE
from cls_export.contract.decoding import ImageSource
from cls_export.contract.errors import BundleError, ConversionError
from cls_export.contract.files import write_atomically
from cls_export.contract.labels_mapping import LabelsMapping
from cls_export.contract.preprocessing import Preprocessing
from cls_export.convert.onnx_file import save_model
from cls_export.runtime.bundle_files import Bundle
from cls_export.runtime.classifier import Classifier

Rewrite = Callable[[Path, Path, Preprocessing], onnx.ModelProto]
"""Takes the float32 ONNX file, a scratch folder, and the preprocessing; returns the new graph."""

_TOLERANCE_MARGIN = 2.0
"""Factor on the measured logit difference: kernels of other machines sum in another order."""


@dataclass(frozen=True, slots=True)
class ConversionReport:
    """The float32 model (before) and the converted model (after) on the evaluation images.

    Without labels, the accuracy is the agreement with the float32 model. `max_difference` is the
    largest difference of a logit.
    """

    images: int
    accuracy_before: float
    accuracy_after: float
    bytes_before: int
    bytes_after: int
    max_difference: float


def convert_bundle(
    bundle: str | os.PathLike[str],
    target: str | os.PathLike[str],
    precision: str,
    rewrite: Rewrite,
    eval_images: Sequence[ImageSource],
    eval_labels: Sequence[str] | None = None,
    *,
    max_accuracy_drop: float,
    min_tolerance: float = 0.0,
) -> ConversionReport:
    """Write a bundle with a rewritten graph.

    Args:
        bundle: The float32 bundle, a folder.
        target: The folder to write; it appears once it is complete.
        precision: Name of the new precision for messages, such as `int8`.
        rewrite: Builds the new graph.
        eval_images: Images that the model was not trained on.
        eval_labels: Their classes. None compares with the predictions of the float32 model.
        max_accuracy_drop: Largest accepted loss of accuracy, as a share of `eval_images`.
        min_tolerance: Smallest tolerance of the golden logits; see `GoldenSet`.

    Raises:
        ConversionError: The loss is larger, or the logits of a golden image differ too much.
            Nothing is written.
        BundleError: A label is not a class of the bundle, the target is the bundle itself, or the
            bundle is incomplete or damaged.
        ImageError: An image cannot be decoded.
    """
    _check_evaluation_set(precision, eval_images, eval_labels)

    source = Bundle.locate(bundle)
    if source.golden is None:
        raise BundleError(f"{bundle}: expected a bundle folder with {GOLDEN_FOLDER}/")
    if Path(bundle).resolve() == Path(target).resolve():
        raise BundleError(
            f"{target} is the float32 bundle itself and would be lost; choose another folder"
        )
    before = Classifier(bundle)
    _check_labels(eval_labels or (), before.labels)

    with staged_bundle(target, before.labels) as draft:
        with tempfile.TemporaryDirectory(dir=draft) as scratch:
            model = rewrite(source.model, Path(scratch), before.labels.preprocessing)
        save_model(model, before.labels, draft / MODEL_FILE)

        after = Classifier(draft / MODEL_FILE)
        report = _compare(before, after, eval_images, eval_labels, source.model, draft / MODEL_FILE)
        if not report.accuracy_before - report.accuracy_after <= max_accuracy_drop:
            raise ConversionError(
                f"{precision} has an accuracy of {report.accuracy_after:.2%} on {report.images} "
                f"images, float32 {report.accuracy_before:.2%}: the drop is over "
                f"{max_accuracy_drop:.2%}. Nothing was written"
            )

        _copy_golden(source, draft / GOLDEN_FOLDER, after, min_tolerance)
        note = _describe_conversion(report, precision, has_labels=eval_labels is not None)
        write_model_card(draft, before.labels, note=note)
    return report


def _describe_conversion(report: ConversionReport, precision: str, *, has_labels: bool) -> str:
    """Return a sentence for the model card."""
    if not has_labels:
        return (
            f"Converted to {precision}: {report.accuracy_after:.1%} of {report.images:,} images "
            "get the class of the float32 model. The accuracy was not measured."
        )
    return (
        f"Converted to {precision}: a top-1 accuracy of {report.accuracy_after:.1%} on "
        f"{report.images:,} images, where float32 reaches {report.accuracy_before:.1%}. No "
        "intervals were computed, and the figures of the float32 bundle are not repeated here."
    )


def _check_evaluation_set(
    precision: str, images: Sequence[ImageSource], labels: Sequence[str] | None
) -> None:
    if not images:
        raise BundleError(f"{precision} needs evaluation images, got none")
    if labels is not None and len(labels) != len(images):
        raise BundleError(
            f"{precision} needs a label for each evaluation image, or no labels; got "
            f"{len(images)} images and {len(labels)} labels"
        )


def _check_labels(eval_labels: Sequence[str], labels: LabelsMapping) -> None:
    for label in eval_labels:
        if label not in labels.class_to_idx:
            classes = ", ".join(map(repr, labels.classes))
            raise BundleError(
                f"label {label!r} in the evaluation set is not a class of the bundle. "
                f"Classes: {classes}"
            )


def _compare(
    before: Classifier,
    after: Classifier,
    images: Sequence[ImageSource],
    labels: Sequence[str] | None,
    model_before: Path,
    model_after: Path,
) -> ConversionReport:
    logits_before = before.logits(images)
    logits_after = after.logits(images)

    predicted_before = logits_before.argmax(axis=1)
    predicted_after = logits_after.argmax(axis=1)

    expected = predicted_before
    if labels is not None:
        expected = np.array([before.labels.class_to_idx[label] for label in labels])

    return ConversionReport(
        images=len(images),
        accuracy_before=float((predicted_before == expected).mean()),
        accuracy_after=float((predicted_after == expected).mean()),
        bytes_before=model_before.stat().st_size,
        bytes_after=model_after.stat().st_size,
        max_difference=float(np.abs(logits_before - logits_after).max()),
    )


def _copy_golden(source: Bundle, target: Path, after: Classifier, tolerance: float) -> None:
    """Copy the golden set with PyTorch's logits, and widen the tolerance to fit the new graph.

    The labels become those of the new graph.

    Raises:
        BundleError: The golden set is damaged.
        ConversionError: The needed tolerance is over `MAX_TOLERANCE`.
    """
    assert source.golden is not None
    golden = GoldenSet.load_of_bundle(source)
    cases = []
    for case in golden.cases:
        data = read_golden_image(source.golden, case)
        write_atomically(target / case.file, data)

        logits = after.logits([data])[0]
        expected = np.asarray(case.logits, np.float32)
        difference = float(np.abs(logits - expected).max())
        relative_difference = difference / allowed_difference(expected, 1.0)
        tolerance = max(tolerance, _TOLERANCE_MARGIN * relative_difference)

        label = after.labels.classes[int(logits.argmax())]
        cases.append(case.model_copy(update={"label": label}))

    if not tolerance <= MAX_TOLERANCE:
        raise ConversionError(
            f"the logits of a golden image differ by {tolerance / _TOLERANCE_MARGIN:.0%} of the "
            f"largest logit, the limit is {MAX_TOLERANCE / _TOLERANCE_MARGIN:.0%}. "
            "Nothing was written"
        )
    GoldenSet(cases=cases, tolerance=tolerance).save(target / GOLDEN_FILE)
