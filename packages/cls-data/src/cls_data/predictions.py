"""The file of an evaluation's answers, image by image."""

import io
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from cls_data.annotations.reading import Record
from cls_data.errors import DataError
from cls_data.evaluation import EvaluationOutputs
from cls_export.contract.files import write_atomically

VERSION = 2
"""Version 1 had `ids`, `labels`, `logits` and `classes` alone, and no `version`; it is still read."""

_REQUIRED = ("ids", "labels", "logits", "classes")
_MADE_BY = "uv run python -m cls_train.stages.evaluate RUN_FOLDER writes it anew"


@dataclass(frozen=True, slots=True)
class Predictions:
    """Answers for one split: compressed numpy arrays, readable without PyTorch and without pickle.

    Attributes:
        ids: str [N], path of each image relative to the data root.
        labels: int64 [N], class indices; what the annotations say.
        logits: float32 [N, C], finite.
        classes: str [C], names in index order.
        groups: str [N], such as the game that an image is from; empty where a row states none.
        metadata: str [N], each row's metadata as JSON.
        sizes: int32 [N, 2], width and height of the image file in pixels; 0 where that is not known.
    """

    ids: NDArray[np.str_]
    labels: NDArray[np.int64]
    logits: NDArray[np.float32]
    classes: NDArray[np.str_]
    groups: NDArray[np.str_]
    metadata: NDArray[np.str_]
    sizes: NDArray[np.int32]

    @classmethod
    def of(
        cls,
        outputs: EvaluationOutputs,
        records: Sequence[Record],
        classes: Sequence[str],
        sizes: NDArray[np.integer[Any]] | None = None,
    ) -> Self:
        """Join gathered outputs with their split's rows and, where they are known, the image files' sizes [rows, 2]."""
        rows = outputs.index.tolist()
        told = [records[row] for row in rows]
        return cls(
            ids=_texts(record.id for record in told),
            labels=outputs.labels.numpy(),
            logits=outputs.logits.numpy(),
            classes=_texts(classes),
            groups=_texts(record.group or "" for record in told),
            metadata=_texts(_as_json(record.metadata) for record in told),
            sizes=np.zeros((len(rows), 2), np.int32)
            if sizes is None
            else np.asarray(sizes, np.int32)[rows],
        )

    def __len__(self) -> int:
        return len(self.ids)

    def metadata_of(self, row: int) -> dict[str, JsonValue]:
        """Return one row's metadata."""
        found: dict[str, JsonValue] = json.loads(str(self.metadata[row]))
        return found

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file; a reader sees it whole or not at all."""
        stream = io.BytesIO()
        arrays = {name: getattr(self, name) for name in (*_REQUIRED, "groups", "metadata", "sizes")}
        np.savez_compressed(stream, version=np.array(VERSION), **arrays)
        write_atomically(path, stream.getvalue())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a file of this version or of an earlier one.

        Raises:
            DataError: no such file; cut short, or none of ours; of a later version; arrays that do not fit together;
                a logit that is not finite.
        """
        try:
            whole = Path(path).read_bytes()  # numpy leaves a damaged file open
            with np.load(io.BytesIO(whole), allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
        except FileNotFoundError as error:
            raise DataError(f"{path}: no such file; {_MADE_BY}") from error
        except (
            OSError,
            EOFError,
            ValueError,
            zipfile.BadZipFile,
            KeyError,
            AttributeError,
        ) as error:
            raise DataError(
                f"{path}: cut short, or no predictions file ({error}); {_MADE_BY}"
            ) from error
        version = arrays.get("version", np.array(1))
        if (
            version.shape != ()
            or version.dtype.kind not in "iu"
            or not 1 <= int(version) <= VERSION
        ):
            raise DataError(
                f"{path}: predictions of version {version}, and this code reads 1 to {VERSION}; use the cls-data that "
                "wrote it, or a later one"
            )
        if lacking := [name for name in _REQUIRED if name not in arrays]:
            raise DataError(
                f"{path}: no predictions file: it has no {', '.join(lacking)}; {_MADE_BY}"
            )
        count = len(arrays["ids"])
        read = cls(
            ids=arrays["ids"],
            labels=arrays["labels"],
            logits=arrays["logits"],
            classes=arrays["classes"],
            groups=arrays.get("groups", np.full(count, "")),
            metadata=arrays.get("metadata", np.full(count, "{}")),
            sizes=arrays.get("sizes", np.zeros((count, 2), np.int32)),
        )
        if problem := read._problem():
            raise DataError(f"{path}: {problem}; {_MADE_BY}")
        return read

    def _problem(self) -> str | None:
        """Say what keeps the arrays from being predictions; None if nothing does."""
        count, classes = len(self.ids), len(self.classes)
        shapes = {
            "ids": (count,),
            "labels": (count,),
            "logits": (count, classes),
            "groups": (count,),
            "metadata": (count,),
            "sizes": (count, 2),
        }
        texts = dict.fromkeys(("ids", "classes", "groups", "metadata"), "U")
        kinds = texts | {"labels": "iu", "logits": "f", "sizes": "iu"}
        for name, shape in shapes.items():
            if (found := getattr(self, name).shape) != shape:
                return f"{name} has shape {found}; expected {shape} for {count} images of {classes} classes"
        for name, kind in kinds.items():
            if (dtype := getattr(self, name).dtype).kind not in kind:
                return f"{name} has dtype {dtype}"
        if count and not (self.labels.min() >= 0 and self.labels.max() < classes):
            return f"labels run from {self.labels.min()} to {self.labels.max()}; expected 0 to {classes - 1}"
        if (bad := np.flatnonzero(~np.isfinite(self.logits).all(axis=1))).size:
            return f"{bad.size} image(s) have logits that are no finite numbers, {self.ids[bad[0]]} first"
        return None


def _texts(values: object) -> NDArray[np.str_]:
    return np.array(list(values), dtype=np.str_)  # type: ignore[call-overload]


def _as_json(metadata: Mapping[str, JsonValue]) -> str:
    return json.dumps(dict(metadata), sort_keys=True, ensure_ascii=False)
