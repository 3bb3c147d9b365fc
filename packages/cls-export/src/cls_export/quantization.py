"""A bundle whose graph computes in int8, and what that costs in answers. Needs `cls-export[torch]`, but no PyTorch."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cls_export.bundle import GOLDEN_FOLDER, LABELS_FILE, METADATA_KEY, MODEL_FILE, Bundle
from cls_export.errors import BundleError
from cls_export.golden import GOLDEN_FILE, GoldenCase, GoldenSet, read_golden, sha256
from cls_export.places import put_in_place, refuse_another_folder
from cls_export.preprocessing import ImageSource
from cls_export.runtime import Classifier

try:
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process
except ImportError as error:
    raise ImportError(f'{error.name} is missing; quantising needs: pip install "cls-export[torch]"') from error

IR_VERSION = 10
_BATCH = 32
_SPARE = 2.0
"""How much further than here logits may lie from PyTorch's on another machine, whose int8 kernels add up otherwise."""


@dataclass(frozen=True, slots=True)
class Quantized:
    """What int8 brings and costs.

    Attributes:
        images: that both models were judged by.
        before: share of them that the float32 model answers rightly, or 1 where the truth was not given.
        after: the same of the int8 model; where the truth was not given, the share answered as by the float32 model.
        bytes_before: of the float32 file.
        bytes_after: of the int8 file.
        max_difference: largest difference of a logit between the two.
    """

    images: int
    before: float
    after: float
    bytes_before: int
    bytes_after: int
    max_difference: float


def quantize_bundle(
    bundle: str | os.PathLike[str],
    target: str | os.PathLike[str],
    calibration: Sequence[ImageSource],
    judged: Sequence[ImageSource],
    truth: Sequence[str] | None = None,
    *,
    largest_loss: float = 0.005,
) -> Quantized:
    """Write an int8 bundle beside a float32 one: static quantisation, weights signed and by channel.

    Activations are unsigned: with both signed, onnxruntime has no fast kernel on a CPU. A machine without VNNI gains
    little, and may add up its 16-bit intermediate results less exactly.

    Args:
        bundle: the float32 one, a folder.
        target: the folder to write; it appears only once it is complete.
        calibration: training images, a few hundred, from which the ranges of activations are taken.
        judged: images that neither model was trained on.
        truth: their classes; None judges the int8 model by the float32 one.
        largest_loss: share of `judged` by which the int8 model may answer fewer rightly.

    Raises:
        BundleError: the loss is larger; or as `Classifier`.
        ImageError: an image cannot be decoded.
    """
    if not calibration or not judged:
        raise BundleError(
            f"quantising needs images to calibrate and to judge by, got {len(calibration)}, {len(judged)}"
        )
    source, place = Bundle.locate(bundle), Path(target).resolve()
    if source.golden is None:
        raise BundleError(f"{bundle}: a folder with {GOLDEN_FOLDER}/ is needed")
    refuse_another_folder(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    classifier = Classifier(bundle)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".bundle-") as scratch:
        draft = Path(scratch) / place.name
        (draft / GOLDEN_FOLDER).mkdir(parents=True)
        _quantize(source.model, draft / MODEL_FILE, classifier, calibration)
        classifier.labels.save(draft / LABELS_FILE)
        int8 = Classifier(draft)
        found = _judge(classifier, int8, judged, truth, source.model, draft / MODEL_FILE)
        if found.before - found.after > largest_loss:
            raise BundleError(
                f"of {found.images} images int8 answers {found.after:.2%} as it should, float32 {found.before:.2%}: a "
                f"loss over {largest_loss:.2%}, so nothing was written. Calibrate on more images, or allow more"
            )
        _copy_golden(source.golden, draft / GOLDEN_FOLDER, int8, found.max_difference)
        put_in_place(draft, place, Path(scratch))
    return found


class _Images(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime is not typed
    """Hands out model input, a batch at a time."""

    def __init__(self, classifier: Classifier, images: Sequence[ImageSource]) -> None:
        self._batches = self._read(classifier, images)

    def get_next(self) -> dict[str, Any] | None:
        """Return the next batch, and None at the end."""
        return next(self._batches, None)

    def _read(self, classifier: Classifier, images: Sequence[ImageSource]) -> Iterator[dict[str, Any]]:
        preprocessing = classifier.labels.preprocessing
        for start in range(0, len(images), _BATCH):
            pixels = np.stack([preprocessing.pixels(image) for image in images[start : start + _BATCH]])
            yield {"images": preprocessing.normalize(pixels)}


def _quantize(source: Path, target: Path, classifier: Classifier, calibration: Sequence[ImageSource]) -> None:
    prepared = target.with_name("prepared.onnx")
    quant_pre_process(source, prepared, skip_symbolic_shape=True)
    quantize_static(
        prepared,
        target,
        _Images(classifier, calibration),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    prepared.unlink()
    model = onnx.load(target)
    model.ir_version = IR_VERSION
    onnx.helper.set_model_props(model, {METADATA_KEY: classifier.labels.to_json()})
    onnx.save_model(model, target)


def _judge(
    classifier: Classifier, int8: Classifier, images: Sequence[ImageSource], truth: Sequence[str] | None, *files: Path
) -> Quantized:
    before, after = classifier.logits(images), int8.logits(images)
    answers, classes = before.argmax(axis=1), np.array(classifier.labels.classes)
    expected = classes[answers] if truth is None else np.array(truth)
    sizes = [file.stat().st_size for file in files]
    return Quantized(
        images=len(images),
        before=float((classes[answers] == expected).mean()),
        after=float((classes[after.argmax(axis=1)] == expected).mean()),
        bytes_before=sizes[0],
        bytes_after=sizes[1],
        max_difference=float(np.abs(before - after).max()),
    )


def _copy_golden(source: Path, target: Path, int8: Classifier, difference: float) -> None:
    """Keep PyTorch's logits, with as much room around them as int8 needs, and the labels that int8 gives."""
    cases, worst = [], difference
    for case in read_golden(source / GOLDEN_FILE).cases:
        data = (source / case.file).read_bytes()
        if sha256(data) != case.file_sha256:
            raise BundleError(f"{source / case.file}: its bytes are not those that training read")
        (target / case.file).write_bytes(data)
        logits = int8.logits([data])[0]
        worst = max(worst, float(np.abs(logits - np.asarray(case.logits)).max()))
        label = int8.labels.classes[int(logits.argmax())]
        cases.append(GoldenCase(**{**case.model_dump(), "label": label}))
    golden = GoldenSet(cases=cases, tolerance=_SPARE * worst)
    (target / GOLDEN_FILE).write_text(golden.model_dump_json(indent=1) + "\n", encoding="utf-8")
