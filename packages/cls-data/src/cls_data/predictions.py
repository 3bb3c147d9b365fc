"""Predictions file: the outputs of an evaluation for each image."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue
from pydantic_core import from_json

from cls_data.errors import DataError
from cls_data.npz_files import read_npz
from cls_export.contract.files import write_atomically
from cls_export.contract.run_layout import RunPaths

if TYPE_CHECKING:
    from cls_data.annotations.reading import Record
    from cls_data.evaluation import EvaluationOutputs

VERSION = 2
"""Version 1 had only `ids`, `labels`, `logits`, and `classes`; it can still be read."""

_REQUIRED = ("ids", "labels", "logits", "classes")
_OPTIONAL = ("groups", "metadata", "sizes")


@dataclass(frozen=True, slots=True)
class Predictions:
    """Predictions for one split. The file is a compressed npz that needs no PyTorch or pickle.

    Attributes:
        ids: str [N], path of each image relative to the data root.
        labels: int64 [N], annotated class indices.
        logits: float32 [N, C], finite.
        classes: str [C], class names in index order.
        groups: str [N], such as the game of the image; empty for no group.
        metadata: str [N], metadata of each row as a JSON object.
        sizes: int32 [N, 2], width and height of the image file in pixels; 0 if unknown.
    """

    ids: NDArray[np.str_]
    labels: NDArray[np.int64]
    logits: NDArray[np.float32]
    classes: NDArray[np.str_]
    groups: NDArray[np.str_]
    metadata: NDArray[np.str_]
    sizes: NDArray[np.int32]

    @classmethod
    def from_outputs(
        cls,
        outputs: EvaluationOutputs,
        records: Sequence[Record],
        classes: Sequence[str],
        sizes: NDArray[np.integer[Any]] | None = None,
    ) -> Self:
        """Combine evaluation outputs with all rows of their split.

        `sizes` has the width and height of their images in pixels, [rows, 2]; None if unknown.
        """
        index = outputs.index.tolist()
        if sizes is None:
            evaluated_sizes = np.zeros((len(index), 2), np.int32)
        else:
            evaluated_sizes = sizes[index].astype(np.int32)

        ids = []
        groups = []
        metadata = []
        for row in index:
            record = records[row]
            ids.append(record.id)
            groups.append(record.group or "")
            text = json.dumps(dict(record.metadata), sort_keys=True, ensure_ascii=False)
            metadata.append(text)

        return cls(
            ids=np.array(ids, dtype=np.str_),
            labels=outputs.labels.numpy(),
            logits=outputs.logits.numpy(),
            classes=np.array(classes, dtype=np.str_),
            groups=np.array(groups, dtype=np.str_),
            metadata=np.array(metadata, dtype=np.str_),
            sizes=evaluated_sizes,
        )

    def __len__(self) -> int:
        return len(self.ids)

    def row_metadata(self, row: int) -> dict[str, JsonValue]:
        """Return the metadata of one row."""
        text = str(self.metadata[row])
        metadata: dict[str, JsonValue] = json.loads(text)
        return metadata

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file atomically."""
        arrays: dict[str, Any] = {"version": np.array(VERSION)}
        for name in (*_REQUIRED, *_OPTIONAL):
            arrays[name] = getattr(self, name)

        stream = io.BytesIO()
        np.savez_compressed(stream, **arrays)
        write_atomically(path, stream.getvalue())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a file of this or an earlier version.

        Raises:
            DataError: The file is missing, damaged, too large, of a later version, or inconsistent.
        """
        try:
            arrays = read_npz(path)
        except DataError as error:
            raise DataError(f"{error}; {_rewrite_advice(path)}") from error
        _check_version(path, arrays.get("version", np.array(1)))

        missing = [name for name in _REQUIRED if name not in arrays]
        if missing:
            raise DataError(
                f"{path}: not a predictions file (no {', '.join(missing)}); {_rewrite_advice(path)}"
            )

        count = arrays["ids"].size
        predictions = cls(
            ids=arrays["ids"],
            labels=arrays["labels"],
            logits=arrays["logits"],
            classes=arrays["classes"],
            groups=arrays.get("groups", np.full(count, "")),
            metadata=arrays.get("metadata", np.full(count, "{}")),
            sizes=arrays.get("sizes", np.zeros((count, 2), np.int32)),
        )
        problem = predictions._find_problem()
        if problem:
            raise DataError(f"{path}: {problem}; {_rewrite_advice(path)}")
        return predictions

    def _find_problem(self) -> str | None:
        """Describe the first inconsistency of the arrays; None if there is none."""
        return (
            self._find_wrong_array()
            or self._find_wrong_label()
            or self._find_repeated_class()
            or self._find_wrong_logit()
            or self._find_wrong_metadata()
        )

    def _find_wrong_array(self) -> str | None:
        count = self.ids.size
        num_classes = self.classes.size
        expected_shapes = {
            "ids": (count,),
            "labels": (count,),
            "logits": (count, num_classes),
            "classes": (num_classes,),
            "groups": (count,),
            "metadata": (count,),
            "sizes": (count, 2),
        }
        dtype_kinds = {"labels": "iu", "logits": "f", "sizes": "iu"}
        for name, expected in expected_shapes.items():
            array = getattr(self, name)
            if array.shape != expected:
                return (
                    f"{name} has shape {array.shape}; expected {expected} for {count} images of "
                    f"{num_classes} classes"
                )
            if array.dtype.kind not in dtype_kinds.get(name, "U"):
                return f"{name} has dtype {array.dtype}"

        if self.logits.dtype.itemsize > 4:  # a larger number could overflow in a softmax
            return f"logits has dtype {self.logits.dtype}; expected float32"
        if count == 0 or num_classes == 0:
            return f"{count} images of {num_classes} classes; expected at least one of each"
        return None

    def _find_wrong_label(self) -> str | None:
        num_classes = len(self.classes)
        lowest = self.labels.min()
        highest = self.labels.max()
        if lowest < 0 or highest >= num_classes:
            return f"labels range from {lowest} to {highest}; expected 0 to {num_classes - 1}"
        return None

    def _find_repeated_class(self) -> str | None:
        # An image may occur more than once: in rows with different labels.
        names, counts = np.unique(self.classes, return_counts=True)
        repeated = names[counts > 1]
        if len(repeated):
            return f"the class {str(repeated[0])!r} occurs more than once"
        return None

    def _find_wrong_logit(self) -> str | None:
        is_finite = np.isfinite(self.logits).all(axis=1)
        nonfinite_ids = self.ids[~is_finite]
        if len(nonfinite_ids):
            return f"{len(nonfinite_ids)} image(s) have non-finite logits, first {nonfinite_ids[0]}"
        return None

    def _find_wrong_metadata(self) -> str | None:
        for text in np.unique(self.metadata).tolist():
            if not _is_json_object(text):
                return f"the metadata {text!r:.80} is not a JSON object"
        return None


def _rewrite_advice(path: str | os.PathLike[str]) -> str:
    folder = Path(path).parent
    is_in_run = folder.name == RunPaths(folder.parent).predictions.name
    run = RunPaths(folder.parent if is_in_run else Path("RUN_FOLDER"))
    return f"write it again with `{run.evaluate_command}`"


def _is_json_object(text: str) -> bool:
    data = text.encode(errors="replace")
    try:
        return isinstance(from_json(data), dict)  # json.loads would allow any depth
    except ValueError:
        return False


def _check_version(path: str | os.PathLike[str], version: NDArray[Any]) -> None:
    is_integer = version.shape == () and version.dtype.kind in "iu"
    if not is_integer or not 1 <= int(version) <= VERSION:
        raise DataError(
            f"{path}: unsupported predictions version {str(version)!r:.40}; this cls-data reads "
            f"versions 1 to {VERSION}. Use the cls-data that wrote the file, or a later one"
        )
