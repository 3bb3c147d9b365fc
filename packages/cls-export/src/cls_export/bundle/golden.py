"""A bundle's self-test: real images with the logits that PyTorch gave for them from file bytes."""

import hashlib
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cls_export.contract.bundle_layout import GOLDEN_FILE, GOLDEN_FOLDER
from cls_export.contract.errors import BundleError, ImageError, format_validation_error
from cls_export.contract.labels_mapping import LabelsMapping
from cls_export.contract.preprocessing import Preprocessing
from cls_export.runtime.bundle import Bundle
from cls_export.runtime.classifier import Classifier

TOLERANCE = 1e-4
"""Largest difference of a logit between PyTorch and onnxruntime, both in float32; of the largest logit, if over 1."""


def allowed_difference(logits: NDArray[np.float32], tolerance: float = TOLERANCE) -> float:
    """Return the largest difference that rounding may make to one of these logits, of any shape.

    Float32 rounds relative to a number's size, so that of logits around 20 a fixed bound would call the same network
    another.
    """
    return tolerance * max(1.0, float(np.abs(logits).max()))


class GoldenCase(BaseModel):
    """One image of the self-test.

    Attributes:
        file: name of the image beside golden.json.
        file_sha256: of the file's bytes.
        decoded_sha256: of the decoded pixels, uint8 [height, width, 3]; None in schema version 1.
        pixels_sha256: of the resized ones, uint8 [H, W, 3].
        input_sha256: of the model's input, float32 [3, H, W]; None in schema version 1.
        logits: what PyTorch gave, in index order.
        label: name of the largest logit's class.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str = Field(pattern=r"^[^/\\]+$")
    file_sha256: str
    decoded_sha256: str | None = None
    pixels_sha256: str
    input_sha256: str | None = None
    logits: list[float]
    label: str


@dataclass(frozen=True, slots=True)
class IntermediateHashes:
    """Hashes of what an image is between its file and the network; fields as in `GoldenCase`."""

    decoded_sha256: str
    pixels_sha256: str
    input_sha256: str

    @classmethod
    def of(cls, data: bytes, preprocessing: Preprocessing) -> Self:
        """Take a file's bytes through all stages.

        Raises:
            ImageError: they cannot be decoded.
        """
        image = preprocessing.decode(data)
        pixels = preprocessing.fit(image)
        return cls(
            sha256(np.asarray(image).tobytes()),
            sha256(pixels.tobytes()),
            sha256(preprocessing.normalize(pixels[None])[0].tobytes()),
        )

    def first_that_differs(self, case: GoldenCase) -> str | None:
        """Return the first stage whose result is another than the case's, as far as that was kept."""
        if case.decoded_sha256 not in (None, self.decoded_sha256):
            return "decode: pixels"
        if case.pixels_sha256 != self.pixels_sha256:
            return "decode or resize: pixels" if case.decoded_sha256 is None else "resize: pixels"
        if case.input_sha256 not in (None, self.input_sha256):
            return "normalize: the model's inputs"
        return None


class GoldenSet(BaseModel):
    """Schema of golden/golden.json.

    Attributes:
        tolerance: as `TOLERANCE`; larger for a graph that computes in int8. None for that.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1, 2] = 2
    tolerance: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    cases: list[GoldenCase]


@dataclass(frozen=True, slots=True)
class GoldenReport:
    """Result of a self-test.

    Attributes:
        images: how many were run.
        max_difference: largest absolute difference of a logit from PyTorch's; infinite where no image got that far.
        failures: a sentence for each image that came out differently, with the first stage that differed.
    """

    images: int
    max_difference: float
    failures: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether every image came out as it did in training."""
        return not self.failures


def verify_bundle(bundle: str | os.PathLike[str], tolerance: float | None = None) -> GoldenReport:
    """Run a bundle's golden images from file bytes to label, and compare with what training got.

    Args:
        bundle: its folder.
        tolerance: as `TOLERANCE`; None for what the golden set states, or that.

    Raises:
        BundleError: the bundle, or its golden folder, is incomplete, damaged or contradicts itself.
    """
    classifier = Classifier(bundle)
    folder = Bundle.locate(bundle).golden
    if folder is None:
        raise BundleError(
            f"{bundle}: no {GOLDEN_FOLDER}/ beside the model, so there is nothing to verify against"
        )
    golden = read_golden(folder / GOLDEN_FILE)
    allowed = (golden.tolerance or TOLERANCE) if tolerance is None else tolerance
    outcomes = [_run_case(classifier, folder, case, allowed) for case in golden.cases]
    computed = [difference for difference, _ in outcomes if difference is not None]
    failures = [
        f"{case.file}: {what}"
        for case, (_, what) in zip(golden.cases, outcomes, strict=True)
        if what
    ]
    return GoldenReport(len(outcomes), max(computed, default=math.inf), tuple(failures))


def write_golden(
    folder: Path,
    images: Sequence[str | os.PathLike[str]],
    labels: LabelsMapping,
    answer: Callable[[NDArray[np.float32]], NDArray[np.float32]],
) -> None:
    """Copy images into a folder, with what each of them is on its way to an answer.

    Args:
        folder: of the golden set.
        images: files.
        labels: whose preprocessing they go through.
        answer: maps input [1, 3, H, W] to logits [1, C], by the network that the bundle is to equal.

    Raises:
        ImageError: an image cannot be decoded.
    """
    cases = []
    for number, image in enumerate(map(Path, images)):
        try:
            data = image.read_bytes()
        except OSError as error:
            raise ImageError(f"{image}: cannot be read ({error.strerror})") from error
        logits = answer(labels.preprocessing(data))[0]
        name = f"{number:03d}{image.suffix.lower()}"
        (folder / name).write_bytes(data)
        cases.append(
            GoldenCase(
                file=name,
                file_sha256=sha256(data),
                **asdict(IntermediateHashes.of(data, labels.preprocessing)),
                logits=logits.tolist(),
                label=labels.classes[int(logits.argmax())],
            )
        )
    (folder / GOLDEN_FILE).write_text(
        GoldenSet(cases=cases).model_dump_json(indent=1) + "\n", encoding="utf-8"
    )


def sha256(data: bytes) -> str:
    """Return the hexadecimal SHA-256 of some bytes."""
    return hashlib.sha256(data).hexdigest()


def read_golden(path: Path) -> GoldenSet:
    """Read golden.json.

    Raises:
        BundleError: it is missing, out of its schema, or lists no image.
    """
    try:
        golden = GoldenSet.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror})") from error
    except ValidationError as error:
        raise BundleError(
            f"{path}: not a golden set of schema version 1 or 2: {format_validation_error(error)}"
        ) from error
    if not golden.cases:
        raise BundleError(f"{path}: lists no image, so there is nothing to verify against")
    return golden


def _run_case(
    classifier: Classifier, folder: Path, case: GoldenCase, tolerance: float
) -> tuple[float | None, str | None]:
    """Return the largest difference of a logit (None where none was computed) and what went wrong first."""
    try:
        data = (folder / case.file).read_bytes()
    except OSError as error:
        return None, f"file: cannot be read ({error.strerror})"
    if sha256(data) != case.file_sha256:
        return None, "file: its bytes are not those that training read"
    try:
        stages = IntermediateHashes.of(data, classifier.labels.preprocessing)
    except ImageError as error:
        return None, f"decode: {error}"
    logits = classifier.logits([data])[0]
    if len(case.logits) != len(logits):
        return None, f"logits: {len(logits)} classes, training had {len(case.logits)}"
    trained = np.asarray(case.logits, np.float32)
    difference, allowed = (
        float(np.abs(logits - trained).max()),
        allowed_difference(trained, tolerance),
    )
    if differs := stages.first_that_differs(case):
        return difference, f"{differs} differ from training's (logits by {difference:.3g})"
    if not difference <= allowed:
        return difference, f"logits: differ by {difference:.3g}, over {allowed:.3g}"
    label = classifier.labels.classes[int(logits.argmax())]
    if label != case.label:
        return difference, f"label: {label!r}, training got {case.label!r}"
    return difference, None
