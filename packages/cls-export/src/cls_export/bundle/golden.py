"""Golden images: a self-test with the logits that PyTorch computed from the same file bytes."""

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
from cls_export.contract.files import read_bytes, sha256_hex, write_atomically
from cls_export.contract.labels_mapping import LabelsMapping
from cls_export.contract.preprocessing import Preprocessing
from cls_export.runtime.bundle_files import Bundle
from cls_export.runtime.classifier import Classifier

TOLERANCE = 1e-4
"""Largest accepted difference of a logit between PyTorch and onnxruntime, both in float32.

Relative to the largest logit if that is above 1."""

PARITY_BATCH_SIZES = (1, 2, 7, 64)
"""Batch sizes at which an exported model is compared with its source."""


def allowed_difference(logits: NDArray[np.float32], tolerance: float = TOLERANCE) -> float:
    """Return the largest difference that rounding may cause in logits of any shape.

    Float32 rounds relative to a number's size, so a fixed bound would reject the same network when
    its logits are around 20.
    """
    largest = float(np.abs(logits).max())
    return tolerance * max(1.0, largest)


@dataclass(frozen=True, slots=True)
class IntermediateHashes:
    """SHA-256 hashes of the results of each stage of preprocessing; see `GoldenCase`."""

    decoded_sha256: str
    pixels_sha256: str
    input_sha256: str

    @classmethod
    def compute(cls, data: bytes, preprocessing: Preprocessing) -> Self:
        """Preprocess the bytes of an image file and hash the result of each stage."""
        image = preprocessing.decode(data)
        pixels = preprocessing.resize_image(image)
        model_input = preprocessing.normalize(pixels[None])[0]

        return cls(
            decoded_sha256=sha256_hex(np.asarray(image).tobytes()),
            pixels_sha256=sha256_hex(pixels.tobytes()),
            input_sha256=sha256_hex(model_input.tobytes()),
        )


class GoldenCase(BaseModel):
    """One image of the self-test.

    Attributes:
        file: Name of the image beside golden.json.
        file_sha256: Hash of the image file.
        decoded_sha256: Hash of the decoded pixels, uint8 [height, width, 3]; None in version 1.
        pixels_sha256: Hash of the resized pixels, uint8 [H, W, 3].
        input_sha256: Hash of the model's input, float32 [3, H, W]; None in version 1.
        logits: Logits of PyTorch, in index order.
        label: Class with the largest logit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str = Field(pattern=r"^[^/\\]+$")
    file_sha256: str
    decoded_sha256: str | None = None
    pixels_sha256: str
    input_sha256: str | None = None
    logits: list[float]
    label: str

    def find_first_difference(self, hashes: IntermediateHashes) -> str | None:
        """Return the first stage whose hash differs; None if all recorded stages agree."""
        if self.decoded_sha256 not in (None, hashes.decoded_sha256):
            return "decode: pixels differ"
        if self.pixels_sha256 != hashes.pixels_sha256:
            stage = "decode or resize" if self.decoded_sha256 is None else "resize"
            return f"{stage}: pixels differ"
        if self.input_sha256 not in (None, hashes.input_sha256):
            return "normalize: model inputs differ"
        return None


class GoldenSet(BaseModel):
    """The schema of golden/golden.json.

    Attributes:
        tolerance: Used instead of `TOLERANCE`, unless None; larger for int8 and float16.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1, 2] = 2
    tolerance: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    cases: list[GoldenCase]

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read golden.json.

        Raises:
            BundleError: The file is missing, violates the schema, or lists no image.
        """
        try:
            golden = cls.model_validate_json(read_bytes(path, error=BundleError))
        except ValidationError as error:
            raise BundleError(
                f"{path}: not a golden set of schema version 1 or 2: "
                f"{format_validation_error(error)}"
            ) from error
        if not golden.cases:
            raise BundleError(f"{path}: lists no image, so the bundle cannot be verified")
        return golden

    def save(self, path: Path) -> None:
        """Write golden.json atomically."""
        text = self.model_dump_json(indent=1) + "\n"
        write_atomically(path, text.encode())


@dataclass(frozen=True, slots=True)
class GoldenReport:
    """The result of a self-test.

    Attributes:
        images: Number of golden images.
        max_difference: Largest absolute difference of a logit from PyTorch's; infinite if no
            logits were computed.
        failures: One line per image whose result differs from training, with the first differing
            stage.
    """

    images: int
    max_difference: float
    failures: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether every image gave the result of training."""
        return not self.failures


def verify_bundle(bundle: str | os.PathLike[str], tolerance: float | None = None) -> GoldenReport:
    """Run the golden images of a bundle, from file bytes to label, and compare with training.

    Args:
        bundle: The folder of the bundle.
        tolerance: See `TOLERANCE`. None for the tolerance of the golden set, or `TOLERANCE`.

    Raises:
        BundleError: The bundle or its golden folder is incomplete, damaged, or contradicts itself.
    """
    classifier = Classifier(bundle)
    folder = Bundle.locate(bundle).golden
    if folder is None:
        raise BundleError(
            f"{bundle}: cannot be verified without golden images; "
            f"expected the folder {GOLDEN_FOLDER}/ beside the model"
        )
    golden = GoldenSet.load(folder / GOLDEN_FILE)
    if tolerance is None:
        tolerance = golden.tolerance or TOLERANCE

    differences = []
    failures = []
    for case in golden.cases:
        difference, failure = _run_case(classifier, folder, case, tolerance)
        if difference is not None:
            differences.append(difference)
        if failure is not None:
            failures.append(f"{case.file}: {failure}")

    max_difference = max(differences, default=math.inf)
    return GoldenReport(len(golden.cases), max_difference, tuple(failures))


def write_golden(
    folder: Path,
    images: Sequence[str | os.PathLike[str]],
    labels: LabelsMapping,
    run_model: Callable[[NDArray[np.float32]], NDArray[np.float32]],
) -> None:
    """Copy images into an empty golden folder and record their hashes, logits, and labels.

    `run_model` maps input [1, 3, H, W] to logits [1, C] with the original network.
    """
    cases = []
    for index, image in enumerate(images):
        path = Path(image)
        data = read_bytes(path, error=ImageError)
        logits = run_model(labels.preprocessing(data))[0]
        name = f"{index:03d}{path.suffix.lower()}"
        write_atomically(folder / name, data)

        hashes = IntermediateHashes.compute(data, labels.preprocessing)
        case = GoldenCase(
            file=name,
            file_sha256=sha256_hex(data),
            **asdict(hashes),
            logits=logits.tolist(),
            label=labels.classes[int(logits.argmax())],
        )
        cases.append(case)
    GoldenSet(cases=cases).save(folder / GOLDEN_FILE)


def read_golden_image(folder: Path, case: GoldenCase) -> bytes:
    """Read the image of a golden case, and check that it has not changed."""
    path = folder / case.file
    data = read_bytes(path, error=BundleError)
    if sha256_hex(data) != case.file_sha256:
        raise BundleError(f"{path}: the content differs from its recorded SHA-256")
    return data


def _run_case(
    classifier: Classifier, folder: Path, case: GoldenCase, tolerance: float
) -> tuple[float | None, str | None]:
    """Return the largest logit difference (None if not computed) and the first failure."""
    try:
        data = read_golden_image(folder, case)
        hashes = IntermediateHashes.compute(data, classifier.labels.preprocessing)
    except BundleError as error:
        return None, f"file: {error}"
    except ImageError as error:
        return None, f"decode: {error}"

    logits = classifier.logits([data])[0]
    expected = np.asarray(case.logits, np.float32)
    if len(expected) != len(logits):
        return None, f"logits: got {len(logits)} classes, expected {len(expected)}"

    difference = float(np.abs(logits - expected).max())
    allowed = allowed_difference(expected, tolerance)

    differing_stage = case.find_first_difference(hashes)
    if differing_stage is not None:
        return difference, f"{differing_stage} from training (logits by {difference:.3g})"
    if not difference <= allowed:
        return difference, f"logits: differ by {difference:.3g}, allowed {allowed:.3g}"

    label = classifier.labels.classes[int(logits.argmax())]
    if label != case.label:
        return difference, f"label: got {label!r}, expected {case.label!r}"
    return difference, None
