"""Golden images: a self-test with the logits that PyTorch computed from the same file bytes."""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, FailFast, Field, ValidationError

from cls_export.bundle.model_card import check_model_card
from cls_export.contract.bundle_layout import (
    GOLDEN_FILE,
    GOLDEN_FOLDER,
    LABELS_FILE,
    MAX_GOLDEN_BYTES,
    MAX_GOLDEN_IMAGE_BYTES,
    MAX_JSON_VALUES,
)
from cls_export.contract.errors import BundleError, ImageError, format_validation_error
from cls_export.contract.files import read_bytes, sha256_hex, write_atomically
from cls_export.contract.image_formats import IMAGE_SUFFIXES
from cls_export.contract.labels_mapping import LabelsMapping
from cls_export.contract.preprocessing import Preprocessing
from cls_export.contract.substitutes import refuse_substitute
from cls_export.runtime.bundle_files import Bundle, read_unless_replaced
from cls_export.runtime.classifier import Classifier

TOLERANCE = 1e-4
"""Largest accepted difference of a logit between PyTorch and onnxruntime, both in float32.

Relative to the largest logit if that is above 1."""

MAX_TOLERANCE = 0.5
"""Largest tolerance of a golden set.

A graph whose logits are all zero differs by 1, so a tolerance of 1 accepts anything. For int8, two
roundings of 2^-9 in each of 50 layers, all in the same direction, would add up to 0.2, of which
converters record the double."""

_FLOAT32_MAX = float(np.finfo(np.float32).max)
_Logit = Annotated[float, Field(ge=-_FLOAT32_MAX, le=_FLOAT32_MAX, allow_inf_nan=False)]

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
    logits: Annotated[list[_Logit], FailFast()]
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
        tolerance: Used instead of `TOLERANCE`, unless None; larger for int8 and float16, at most
            `MAX_TOLERANCE`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1, 2] = 2
    tolerance: Annotated[float, Field(gt=0, le=MAX_TOLERANCE, allow_inf_nan=False)] | None = None
    cases: Annotated[list[GoldenCase], FailFast()]

    @classmethod
    def load(cls, path: Path, expected_sha256: str | None = None) -> Self:
        """Read golden.json.

        Args:
            path: The file.
            expected_sha256: Its hash, as the labels mapping states it; None if unknown.

        Raises:
            BundleError: The file is missing, too large, has another hash, violates the schema, or
                lists no image.
        """
        text = read_bytes(path, error=BundleError, max_bytes=MAX_GOLDEN_BYTES)
        refuse_substitute(path, text)
        text = text.replace(b"\r\n", b"\n")  # git may change the line ends, which JSON ignores
        if expected_sha256 is not None and sha256_hex(text) != expected_sha256:
            raise BundleError(
                f"{path} is damaged or belongs to another bundle: its SHA-256 is not the "
                f"golden_sha256 in {LABELS_FILE}. Copy or export the bundle again"
            )
        if text.count(b",") > MAX_JSON_VALUES:
            raise BundleError(f"{path}: more than {MAX_JSON_VALUES:,} values")
        try:
            golden = cls.model_validate_json(text)
        except ValidationError as error:
            raise BundleError(
                f"{path}: not a golden set of schema version 1 or 2: "
                f"{format_validation_error(error)}"
            ) from error
        if not golden.cases:
            raise BundleError(f"{path}: lists no image, so the bundle cannot be verified")
        return golden

    @classmethod
    def load_of_bundle(cls, bundle: Bundle) -> Self:
        """Read the golden set of a bundle, and check the hash that its labels mapping states.

        Raises a BundleError like `load`, or if the bundle has no golden folder.
        """
        if bundle.golden is None or bundle.labels is None:
            raise BundleError(
                f"{bundle.model.parent}: expected the folder {GOLDEN_FOLDER}/ beside the model"
            )
        labels = LabelsMapping.load(bundle.labels)
        return cls.load(bundle.golden / GOLDEN_FILE, labels.golden_sha256)

    def save(self, path: Path) -> None:
        """Write golden.json atomically.

        Raises a BundleError if it would be too large to be read again.
        """
        text = self.model_dump_json(indent=1).encode() + b"\n"
        if len(text) > MAX_GOLDEN_BYTES or text.count(b",") > MAX_JSON_VALUES:
            raise BundleError(
                f"{len(self.cases)} golden images with {len(self.cases[0].logits):,} logits each "
                f"are too many; golden.json holds at most {MAX_JSON_VALUES:,} values"
            )
        write_atomically(path, text)


@dataclass(frozen=True, slots=True)
class GoldenReport:
    """The result of a self-test.

    Attributes:
        images: Number of golden images.
        max_difference: Largest absolute difference of a logit from PyTorch's; infinite if no
            logits were computed.
        failures: One line per image whose result differs from training, with the first differing
            stage.
        has_checked_hash: Whether the bundle states the SHA-256 of its files. They agree, otherwise
            there is no report. False for bundles of schema versions 1 and 2.
    """

    images: int
    max_difference: float
    failures: tuple[str, ...]
    has_checked_hash: bool = True

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
    if tolerance is not None and not 0 <= tolerance <= MAX_TOLERANCE:
        raise ValueError(f"tolerance must be 0 to {MAX_TOLERANCE}, got {tolerance}")

    return read_unless_replaced(
        bundle,
        lambda: _verify(bundle, tolerance),
        is_complete=lambda report: report.passed,
    )


def _verify(path: str | os.PathLike[str], tolerance: float | None) -> GoldenReport:
    classifier = Classifier(path)
    bundle = Bundle.locate(path)
    if bundle.golden is None:
        raise BundleError(
            f"{path}: cannot be verified without golden images; "
            f"expected the folder {GOLDEN_FOLDER}/ beside the model"
        )
    golden = GoldenSet.load_of_bundle(bundle)
    assert bundle.labels is not None
    check_model_card(bundle.labels.parent, LabelsMapping.load(bundle.labels))
    if tolerance is None:
        tolerance = golden.tolerance or TOLERANCE

    differences = []
    failures = []
    for case in golden.cases:
        difference, failure = _run_case(classifier, bundle.golden, case, tolerance)
        if difference is not None:
            differences.append(difference)
        if failure is not None:
            failures.append(f"{case.file}: {failure}")

    max_difference = max(differences, default=math.inf)
    return GoldenReport(
        len(golden.cases), max_difference, tuple(failures), classifier.has_checked_hash
    )


def write_golden(
    folder: Path,
    images: Sequence[str | os.PathLike[str]],
    labels: LabelsMapping,
    run_model: Callable[[NDArray[np.float32]], NDArray[np.float32]],
) -> None:
    """Copy images into an empty golden folder and record their hashes, logits, and labels.

    `run_model` maps input [1, 3, H, W] to logits [1, C] with the original network.

    Raises:
        BundleError: Logits are not finite, or the set is too large.
        ImageError: An image cannot be read or decoded.
    """
    cases = []
    for index, image in enumerate(images):
        path = Path(image)
        data = read_bytes(path, error=ImageError, max_bytes=MAX_GOLDEN_IMAGE_BYTES)
        logits = run_model(labels.preprocessing(data))[0]
        if not np.isfinite(logits).all():
            raise BundleError(
                f"the model's logits for the golden image {path} are not finite numbers; "
                "its weights may have diverged"
            )
        suffix = path.suffix.lower()
        name = f"{index:03d}{suffix if suffix in IMAGE_SUFFIXES else ''}"
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
    data = read_bytes(path, error=BundleError, max_bytes=MAX_GOLDEN_IMAGE_BYTES)
    refuse_substitute(path, data)
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
