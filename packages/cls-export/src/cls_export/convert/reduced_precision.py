"""A bundle whose graph is another one's with fewer bits: what that costs in answers, and when it is refused.

Needs `cls-export[torch]`, but no PyTorch.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cls_export.bundle.golden import GoldenSet, allowed_difference, read_golden, sha256
from cls_export.bundle.onnx_file import save_model
from cls_export.bundle.staging import staged_bundle
from cls_export.contract.bundle_layout import GOLDEN_FILE, GOLDEN_FOLDER, LABELS_FILE, MODEL_FILE
from cls_export.contract.errors import BundleError
from cls_export.contract.labels_mapping import LabelsMapping
from cls_export.contract.preprocessing import ImageSource, Preprocessing
from cls_export.runtime.bundle import Bundle
from cls_export.runtime.classifier import Classifier

if TYPE_CHECKING:
    import onnx

Rewrite = Callable[[Path, Path, Preprocessing], "onnx.ModelProto"]
"""Takes the float32 ONNX file, a folder that it may write into, and what images go through; returns the other graph."""

_SPARE = 2.0
"""How much further than here logits may lie from PyTorch's on another machine, whose kernels add up otherwise."""


@dataclass(frozen=True, slots=True)
class ConversionReport:
    """What fewer bits bring and cost.

    Attributes:
        images: that both models were eval_images by.
        before: share of them that the float32 model answers rightly, or 1 where the truth was not given.
        after: the same of the other; where the truth was not given, the share answered as by the float32 model.
        bytes_before: of the float32 file.
        bytes_after: of the other.
        max_difference: largest difference of a logit between the two.
    """

    images: int
    before: float
    after: float
    bytes_before: int
    bytes_after: int
    max_difference: float


def convert_bundle(
    bundle: str | os.PathLike[str],
    target: str | os.PathLike[str],
    kind: str,
    rewrite: Rewrite,
    eval_images: Sequence[ImageSource],
    truth: Sequence[str] | None = None,
    *,
    max_accuracy_drop: float,
    tolerance: float = 0.0,
) -> ConversionReport:
    """Write a bundle whose graph is another one's, rewritten.

    Args:
        bundle: the float32 one, a folder.
        target: the folder to write; it appears only once it is complete.
        kind: of the other graph, for messages, such as `int8`.
        rewrite: what makes it.
        eval_images: images that the model was not trained on.
        truth: their classes; None judges the other model by the float32 one.
        max_accuracy_drop: share of `eval_images` by which the other model may answer fewer rightly.
        tolerance: least room around golden logits, as `cls_export.bundle.golden.TOLERANCE`.

    Raises:
        BundleError: the loss is larger, a class of `truth` is none of the bundle, the target is the bundle itself; or
            as `Classifier`.
        ImageError: an image cannot be decoded.
    """
    if not eval_images or (truth is not None and len(truth) != len(eval_images)):
        raise BundleError(
            f"{kind} needs images to be eval_images by, with a class for each or for none; got {len(eval_images)} images"
        )
    source = Bundle.locate(bundle)
    if source.golden is None:
        raise BundleError(f"{bundle}: a folder with {GOLDEN_FOLDER}/ is needed")
    if Path(bundle).resolve() == Path(target).resolve():
        raise BundleError(
            f"{target} is the float32 bundle itself, which would be lost; choose another folder"
        )
    before = Classifier(bundle)
    for label in truth or ():
        if label not in before.labels.class_to_idx:
            raise BundleError(
                f"{label!r}, which an image is to be, is no class of {bundle}; so nothing can be eval_images"
            )
    with staged_bundle(target) as draft:
        model = rewrite(source.model, draft.parent, before.labels.preprocessing)
        save_model(model, before.labels, draft / MODEL_FILE)
        before.labels.save(draft / LABELS_FILE)
        after = Classifier(draft)
        logits = before.logits(eval_images), after.logits(eval_images)
        found = _compared(*logits, before.labels, truth, source.model, draft / MODEL_FILE)
        if not found.before - found.after <= max_accuracy_drop:
            raise BundleError(
                f"of {found.images} images {kind} answers {found.after:.2%} as it should, float32 {found.before:.2%}: "
                f"a loss over {max_accuracy_drop:.2%}, so nothing was written"
            )
        _copy_golden(source.golden, draft / GOLDEN_FOLDER, after, tolerance)
    return found


def _compared(
    before: NDArray[np.float32],
    after: NDArray[np.float32],
    labels: LabelsMapping,
    truth: Sequence[str] | None,
    *files: Path,
) -> ConversionReport:
    classes = np.array(labels.classes)
    answers = classes[before.argmax(axis=1)]
    expected = answers if truth is None else np.array(truth)
    sizes = [file.stat().st_size for file in files]
    return ConversionReport(
        images=len(before),
        before=float((answers == expected).mean()),
        after=float((classes[after.argmax(axis=1)] == expected).mean()),
        bytes_before=sizes[0],
        bytes_after=sizes[1],
        max_difference=float(np.abs(before - after).max()),
    )


def _copy_golden(source: Path, target: Path, after: Classifier, tolerance: float) -> None:
    """Keep PyTorch's logits, with room for how far the other graph's lie apart, and the labels that it gives."""
    cases = []
    for case in read_golden(source / GOLDEN_FILE).cases:
        try:
            data = (source / case.file).read_bytes()
        except OSError as error:
            raise BundleError(f"{source / case.file}: cannot be read ({error.strerror})") from error
        if sha256(data) != case.file_sha256:
            raise BundleError(f"{source / case.file}: its bytes are not those that training read")
        (target / case.file).write_bytes(data)
        logits, trained = after.logits([data])[0], np.asarray(case.logits, np.float32)
        tolerance = max(
            tolerance,
            _SPARE * float(np.abs(logits - trained).max()) / allowed_difference(trained, 1.0),
        )
        cases.append(case.model_copy(update={"label": after.labels.classes[int(logits.argmax())]}))
    golden = GoldenSet(cases=cases, tolerance=tolerance)
    (target / GOLDEN_FILE).write_text(golden.model_dump_json(indent=1) + "\n", encoding="utf-8")
