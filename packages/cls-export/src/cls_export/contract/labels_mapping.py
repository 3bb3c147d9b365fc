"""labels_mapping.json: what a consumer must know of a model besides its graph."""

import hashlib
import json
import os
import warnings
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from cls_export.contract.calibration import Calibration, Reject
from cls_export.contract.errors import BundleError, format_validation_error
from cls_export.contract.preprocessing import Preprocessing, Resample, Resize


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Normalization(_Frozen):
    """Per-channel mean and standard deviation of pixels scaled to 0-1, in R, G, B order."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class ScoredMetric(_Frozen):
    """The monitored metric that the exported weights earned, and where."""

    name: str
    value: float
    epoch: int
    step: int


class Provenance(_Frozen):
    """Where a model comes from. `None` stands for what was not known when the file was written.

    Attributes:
        run: name of the run.
        code_commit: commit of the training code; `-dirty` follows where the work tree had changes.
        data_fingerprint: content hash of the annotations and image bytes that were trained on.
        weights: `ema` for averaged weights, `raw` for the optimizer's own.
        metric: what these weights earned.
    """

    run: str | None = None
    code_commit: str | None = None
    data_fingerprint: str | None = None
    weights: Literal["ema", "raw"] | None = None
    metric: ScoredMetric | None = None


class LabelsMapping(_Frozen):
    """Classes, preprocessing and origin of one model; the schema of labels_mapping.json.

    The first four keys are those of the file's ancestor and keep their shape, so that its readers go on working.

    Attributes:
        idx_to_class: the inverse of `class_to_idx`; its keys are indices written as strings.
        labels_sha256: SHA-256 of the class names in index order, written as a JSON array without spaces.
        schema_version: 2; version 1 had neither calibration nor reject, and is still read.
        calibration: how logits become probabilities; None for a plain softmax.
        reject: which answers are none; None where every answer counts.
    """

    num_classes: int
    class_to_idx: dict[str, int]
    idx_to_class: dict[str, str]
    normalization: Normalization
    schema_version: Literal[1, 2] = 2
    preprocessing: Preprocessing
    labels_sha256: str
    calibration: Calibration | None = None
    reject: Reject | None = None
    provenance: Provenance = Provenance()

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        names = {index: name for name, index in self.class_to_idx.items()}
        if (
            sorted(names) != list(range(self.num_classes))
            or len(self.class_to_idx) != self.num_classes
        ):
            raise ValueError(
                f"num_classes is {self.num_classes}, so class_to_idx must hold each of 0..{self.num_classes - 1} "
                f"once; it holds {len(self.class_to_idx)} names"
            )
        if self.idx_to_class != {str(index): name for index, name in names.items()}:
            raise ValueError("idx_to_class is not the inverse of class_to_idx")
        if self.labels_sha256 != _labels_sha256(self.classes):
            raise ValueError(
                f"labels_sha256 is not the hash of these classes ({_labels_sha256(self.classes)})"
            )
        if (self.normalization.mean, self.normalization.std) != (
            self.preprocessing.mean,
            self.preprocessing.std,
        ):
            raise ValueError("normalization and preprocessing state different mean or std")
        if self.schema_version == 1 and (self.calibration or self.reject):
            raise ValueError(
                "calibration and reject are of schema version 2, and schema_version is 1"
            )
        if self.calibration and len(self.calibration.scale) not in (1, self.num_classes):
            raise ValueError(
                f"calibration has {len(self.calibration.scale)} scales for {self.num_classes} classes"
            )
        if self.reject and (
            unknown := sorted(self.reject.by_class.keys() - self.class_to_idx.keys())
        ):
            raise ValueError(f"reject has a threshold for {unknown[0]!r}, which is no class")
        return self

    @classmethod
    def from_classes(
        cls,
        class_to_idx: dict[str, int],
        preprocessing: Preprocessing,
        provenance: Provenance | None = None,
    ) -> Self:
        """Build the mapping from a name-to-index dictionary whose indices are 0..C-1."""
        names = sorted(class_to_idx, key=class_to_idx.__getitem__)
        return cls(
            num_classes=len(names),
            class_to_idx={name: class_to_idx[name] for name in names},
            idx_to_class={str(class_to_idx[name]): name for name in names},
            normalization=Normalization(mean=preprocessing.mean, std=preprocessing.std),
            preprocessing=preprocessing,
            labels_sha256=_labels_sha256(tuple(names)),
            provenance=provenance or Provenance(),
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in index order."""
        return tuple(sorted(self.class_to_idx, key=self.class_to_idx.__getitem__))

    def to_json(self) -> str:
        """Return the file's text, which is also what the ONNX file's metadata carries."""
        return json.dumps(self.model_dump(mode="json"), ensure_ascii=False, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, source: str = "labels mapping") -> Self:
        """Read the file's text; `source` names it in errors.

        Raises:
            BundleError: not JSON, an unknown or missing key, or parts that contradict each other.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            older = any(
                item["type"] == "missing" and item["loc"] == ("preprocessing",)
                for item in error.errors()
            )
            hint = ". Older tools wrote such; see cls-export migrate" if older else ""
            raise BundleError(
                f"{source} is not a labels mapping of schema version 1 or 2: {format_validation_error(error)}{hint}"
            ) from error

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
        """Build a mapping from one that has only the ancestor's four keys, and warn of what it does not say.

        Args:
            text: JSON with num_classes, class_to_idx, idx_to_class and normalization.
            size: height and width of the model's input, in pixels.
            resize: as in `Preprocessing`, as are `resize_to` and `resample`; None assumes its default.
            resize_to: for `shortest_edge`.
            resample: Pillow's filter.

        Raises:
            BundleError: not JSON, other keys, keys that contradict each other, or a resize that cannot be.
        """
        said = {"size": size, "resize": resize, "resize_to": resize_to, "resample": resample}
        try:
            ancestor = _LegacyMapping.model_validate_json(text)
            preprocessing = Preprocessing.model_validate(
                ancestor.normalization.model_dump()
                | {key: value for key, value in said.items() if value is not None}
            )
            mapping = cls.from_classes(ancestor.class_to_idx, preprocessing)
            mapping = cls.model_validate({**mapping.model_dump(), **ancestor.model_dump()})
        except ValidationError as error:
            raise BundleError(
                f"not the ancestor's labels mapping: {format_validation_error(error)}"
            ) from error
        assumed = [
            *([f"{preprocessing.resize!r} to {size[0]} x {size[1]} px"] if resize is None else []),
            *([f"{preprocessing.resample} resampling"] if resample is None else []),
            "channels in R, G, B order, normalized outside the graph",
        ]
        warnings.warn(
            f"the mapping does not say how images become the model's input; assumed: {'; '.join(assumed)}. "
            "Confidence is not calibrated, and the origin is unknown",
            stacklevel=2,
        )
        return mapping

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file; a reader sees the old content or the new, never a part."""
        target = Path(path)
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        temporary.write_text(self.to_json(), encoding="utf-8")
        os.replace(temporary, target)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read the file.

        Raises:
            BundleError: missing, or not a valid mapping.
        """
        try:
            text = Path(path).read_bytes()
        except OSError as error:
            raise BundleError(f"{path}: cannot be read ({error.strerror})") from error
        return cls.from_json(text, source=str(path))


class _LegacyMapping(_Frozen):
    """The four keys that a labels mapping began with."""

    num_classes: int
    class_to_idx: dict[str, int]
    idx_to_class: dict[str, str]
    normalization: Normalization


def _labels_sha256(classes: tuple[str, ...]) -> str:
    text = json.dumps(classes, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
