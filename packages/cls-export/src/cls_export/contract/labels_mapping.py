"""The schema of labels_mapping.json: classes, preprocessing, calibration, and provenance."""

import json
import os
import warnings
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cls_export.contract.bundle_layout import MAX_JSON_VALUES, MAX_LABELS_BYTES
from cls_export.contract.calibration import Calibration, Reject
from cls_export.contract.errors import BundleError, format_validation_error
from cls_export.contract.files import read_bytes, sha256_hex, write_atomically
from cls_export.contract.preprocessing import Preprocessing, Resample, Resize
from cls_export.contract.substitutes import refuse_substitute

_FILE_HASHES = ("model_sha256", "golden_sha256", "card_sha256")
SHA256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _FrozenModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Normalization(_FrozenModel):
    """Mean and standard deviation of each channel, for pixels scaled to 0-1, in R, G, B order."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class ScoredMetric(_FrozenModel):
    """The monitored metric of the exported weights, with the epoch and step of its measurement."""

    name: str
    value: float
    epoch: int
    step: int


class Provenance(_FrozenModel):
    """The origin of a model. `None` means unknown.

    Attributes:
        run: Name of the run.
        code_commit: Commit of the training code, with the suffix `-dirty` for uncommitted changes.
        data_fingerprint: Content hash of the annotations and image bytes of the training data.
        weights: `ema` for averaged weights, `raw` for the optimizer's own.
        metric: The metric of these weights.
    """

    run: str | None = None
    code_commit: str | None = None
    data_fingerprint: str | None = None
    weights: Literal["ema", "raw"] | None = None
    metric: ScoredMetric | None = None


class LegacyLabelsMapping(_FrozenModel):
    """The four keys of the first labels mappings, written before schema version 1."""

    num_classes: int
    class_to_idx: dict[str, int]
    idx_to_class: dict[str, str]
    normalization: Normalization


class LabelsMapping(LegacyLabelsMapping):
    """Classes, preprocessing, and provenance of one model; the schema of labels_mapping.json.

    The first four keys keep their original shape, so that readers of the first mappings still work.

    Attributes:
        idx_to_class: The inverse of `class_to_idx`, with the indices as strings.
        schema_version: 3. Version 1 had neither `calibration` nor `reject`, version 2 had no hashes
            of files; both are still read.
        labels_sha256: SHA-256 of the class names in index order, as a JSON array without spaces.
        model_sha256: SHA-256 of model.onnx. None outside a bundle, and in the copy inside
            model.onnx, which cannot contain its own hash.
        golden_sha256: SHA-256 of golden/golden.json, which has the hash of each golden image. None
            where `model_sha256` is None.
        card_sha256: SHA-256 of README.md, the model card. None if the bundle has none.
        calibration: How logits become probabilities; None for a plain softmax.
        reject: Confidence thresholds; None if no prediction is rejected.
        confidence_notes: Why a calibration or threshold that was asked for is missing, one sentence
            each.
    """

    schema_version: Literal[1, 2, 3] = 3
    preprocessing: Preprocessing
    labels_sha256: str
    model_sha256: SHA256 | None = None
    golden_sha256: SHA256 | None = None
    card_sha256: SHA256 | None = None
    calibration: Calibration | None = None
    reject: Reject | None = None
    confidence_notes: tuple[str, ...] = ()
    provenance: Provenance = Provenance()

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        self._check_classes()
        self._check_confidence()
        self._check_file_hashes()

        normalization = (self.normalization.mean, self.normalization.std)
        if normalization != (self.preprocessing.mean, self.preprocessing.std):
            raise ValueError("normalization and preprocessing state different mean or std")
        return self

    def _check_classes(self) -> None:
        indices = sorted(self.class_to_idx.values())
        # num_classes may be huge, so it is compared before a list of that length is built.
        has_other_length = len(indices) != self.num_classes
        if has_other_length or indices != list(range(len(indices))):
            raise ValueError(
                f"num_classes is {self.num_classes}, so class_to_idx must contain each index of "
                f"0..{self.num_classes - 1} once; it contains {len(indices)} names"
            )
        inverse = {str(index): name for name, index in self.class_to_idx.items()}
        if self.idx_to_class != inverse:
            raise ValueError("idx_to_class is not the inverse of class_to_idx")
        expected = _hash_class_names(self.classes)
        if self.labels_sha256 != expected:
            raise ValueError(f"labels_sha256 is not the hash of these classes ({expected})")

    def _check_confidence(self) -> None:
        if self.schema_version == 1 and (self.calibration or self.reject):
            raise ValueError("calibration and reject need schema_version 2, got 1")

        if self.calibration is not None:
            scales = len(self.calibration.scale)
            if scales not in (1, self.num_classes):
                raise ValueError(f"calibration has {scales} scales for {self.num_classes} classes")

        if self.reject is not None:
            unknown = sorted(self.reject.by_class.keys() - self.class_to_idx.keys())
            if unknown:
                raise ValueError(f"reject has a threshold for the unknown class {unknown[0]!r}")

    def _check_file_hashes(self) -> None:
        hashes = (self.model_sha256, self.golden_sha256)
        if hashes == (None, None):
            if self.card_sha256 is not None:
                raise ValueError("card_sha256 needs model_sha256 and golden_sha256")
            return
        if None in hashes:
            raise ValueError("model_sha256 and golden_sha256 are stated together")
        if self.schema_version < 3:
            raise ValueError(
                f"model_sha256 and golden_sha256 need schema_version 3, got {self.schema_version}"
            )

    @classmethod
    def from_classes(
        cls,
        class_to_idx: dict[str, int],
        preprocessing: Preprocessing,
        provenance: Provenance | None = None,
    ) -> Self:
        """Build a mapping from class names and their indices 0..C-1.

        Raises:
            ValueError: The indices are others, or a name is not valid Unicode.
        """
        names = sorted(class_to_idx, key=class_to_idx.__getitem__)
        normalization = Normalization(mean=preprocessing.mean, std=preprocessing.std)

        return cls(
            num_classes=len(names),
            class_to_idx={name: class_to_idx[name] for name in names},
            idx_to_class={str(class_to_idx[name]): name for name in names},
            normalization=normalization,
            preprocessing=preprocessing,
            labels_sha256=_hash_class_names(tuple(names)),
            provenance=provenance or Provenance(),
        )

    @classmethod
    def from_legacy(
        cls,
        text: str | bytes,
        *,
        size: tuple[int, int],
        resize: Resize | None = None,
        resize_to: int | None = None,
        resample: Resample | None = None,
    ) -> Self:
        """Build a mapping from the JSON of one that has only the first four keys.

        The other arguments are those of `Preprocessing`. For None, its defaults are assumed, with a
        warning.

        Raises:
            BundleError: Not JSON, other keys, keys that contradict each other, or an invalid
                combination of resize settings.
        """
        settings: dict[str, Any] = {"size": size}
        if resize is not None:
            settings["resize"] = resize
        if resize_to is not None:
            settings["resize_to"] = resize_to
        if resample is not None:
            settings["resample"] = resample

        try:
            _check_size(text)
            legacy = LegacyLabelsMapping.model_validate_json(text)
            settings.update(legacy.normalization.model_dump())
            preprocessing = Preprocessing.model_validate(settings)
            mapping = cls.from_classes(legacy.class_to_idx, preprocessing)
            mapping = cls.model_validate({**mapping.model_dump(), **legacy.model_dump()})
        except ValidationError as error:
            problems = format_validation_error(error)
            raise BundleError(f"not a labels mapping of four keys: {problems}") from error
        except ValueError as error:
            raise BundleError(f"not a labels mapping of four keys: {error}") from error

        assumptions = []
        if resize is None:
            assumptions.append(f"{preprocessing.resize!r} to {size[0]} x {size[1]} px")
        if resample is None:
            assumptions.append(f"{preprocessing.resample} resampling")
        assumptions.append("channels in R, G, B order, normalized outside the graph")
        warnings.warn(
            f"the labels mapping does not describe the preprocessing. Assumed: "
            f"{'; '.join(assumptions)}. Confidence is not calibrated, and the origin is unknown",
            stacklevel=2,
        )
        return mapping

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in index order."""
        names = sorted(self.class_to_idx, key=self.class_to_idx.__getitem__)
        return tuple(names)

    def with_file_hashes(
        self, model_sha256: str, golden_sha256: str, card_sha256: str | None = None
    ) -> Self:
        """Return the mapping of a bundle with these files."""
        content = self.model_dump()
        content.update(
            schema_version=3,
            model_sha256=model_sha256,
            golden_sha256=golden_sha256,
            card_sha256=card_sha256,
        )
        return self.model_validate(content)

    def without_file_hashes(self) -> Self:
        """Return the copy that is stored inside model.onnx."""
        hashes = dict.fromkeys(_FILE_HASHES)
        return self.model_copy(update=hashes)

    def to_json(self) -> str:
        """Return the text of the file, without the keys of version 3 that are empty."""
        content = self.model_dump(mode="json")
        content["preprocessing"] = self.preprocessing.describe()
        for name in _FILE_HASHES:
            if content[name] is None:
                del content[name]
        if not self.confidence_notes:  # version 2 lacks the key
            del content["confidence_notes"]
        return json.dumps(content, ensure_ascii=False, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, source: str = "labels mapping") -> Self:
        """Read the text of the file; `source` names it in errors.

        Raises:
            BundleError: Not JSON, an unknown or missing key, or keys that contradict each other.
        """
        try:
            _check_size(text)
            return cls.model_validate_json(text)
        except ValidationError as error:
            hint = _migration_hint(error)
            raise BundleError(
                f"{source} is not a labels mapping of schema version 1, 2, or 3: "
                f"{format_validation_error(error)}{hint}"
            ) from error
        except ValueError as error:
            raise BundleError(f"{source} is not a labels mapping: {error}") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file atomically."""
        text = self.to_json()
        write_atomically(path, text.encode())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read the file.

        Raises:
            BundleError: The file is missing, larger than 16 MiB, or not a valid mapping.
        """
        text = read_bytes(path, error=BundleError, max_bytes=MAX_LABELS_BYTES)
        refuse_substitute(path, text)
        return cls.from_json(text, source=str(path))


def _migration_hint(error: ValidationError) -> str:
    if error.error_count() > 10:  # older mappings lack two keys
        return ""
    for item in error.errors():
        if item["type"] == "missing" and item["loc"] == ("preprocessing",):
            return ". For a mapping of an older tool, run: cls-export migrate"
    return ""


def _check_size(text: str | bytes) -> None:
    """Raise a ValueError if the text is too long, before its values take memory."""
    if len(text) > MAX_LABELS_BYTES:
        raise ValueError(f"larger than {MAX_LABELS_BYTES:,} bytes")
    commas = text.count(",") if isinstance(text, str) else text.count(b",")
    if commas > MAX_JSON_VALUES:
        raise ValueError(f"more than {MAX_JSON_VALUES:,} values")


def _hash_class_names(classes: tuple[str, ...]) -> str:
    for name in classes:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"class {name!a} is not valid Unicode (a surrogate without its pair), so it cannot "
                "be written to a file; rename the class"
            ) from error
    text = json.dumps(classes, ensure_ascii=False, separators=(",", ":"))
    return sha256_hex(text.encode())
