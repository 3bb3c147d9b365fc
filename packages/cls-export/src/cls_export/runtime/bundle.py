"""The exported folder: model.onnx, labels_mapping.json, golden/."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import onnxruntime as ort

from cls_export.contract.bundle_layout import GOLDEN_FOLDER, LABELS_FILE, METADATA_KEY, MODEL_FILE
from cls_export.contract.errors import BundleError
from cls_export.contract.labels_mapping import LabelsMapping

_NOWHERE = "/cls-export-reads-no-external-data"
_KEY_OF_OUTSIDE = b"location"
"""Without this word no tensor can name a file: it is the key of the entry that does (onnx.proto, external_data)."""
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Bundle:
    """Where the parts of an exported model lie. `labels` is None for a lone ONNX file, which carries its own."""

    model: Path
    labels: Path | None
    golden: Path | None

    @classmethod
    def locate(cls, path: str | os.PathLike[str]) -> Self:
        """Find the parts, given the bundle's folder or the ONNX file itself.

        Raises:
            BundleError: a part that must be there is missing.
        """
        given = Path(path)
        if given.is_file():
            return cls(model=given, labels=None, golden=None)
        if not given.is_dir():
            raise BundleError(
                f"{given}: no such bundle; expected a folder with {MODEL_FILE}, or an ONNX file"
            )
        for name in (MODEL_FILE, LABELS_FILE):
            if not (given / name).is_file():
                raise BundleError(
                    f"{given}: {name} is missing; a bundle holds {MODEL_FILE} and {LABELS_FILE}"
                )
        golden = given / GOLDEN_FOLDER
        return cls(
            model=given / MODEL_FILE,
            labels=given / LABELS_FILE,
            golden=golden if golden.is_dir() else None,
        )

    def open(
        self, providers: list[str], options: ort.SessionOptions, *, fall_back: bool = False
    ) -> tuple[ort.InferenceSession, LabelsMapping]:
        """Open the session and read the mapping, refusing whatever contradicts itself.

        Args:
            providers: by preference.
            options: to which what keeps the session to this one file is added.
            fall_back: whether onnxruntime may go over to other providers, now or in any later run, when one fails.

        Raises:
            BundleError: a damaged model, no mapping inside it, another mapping beside it, or other inputs and
                outputs than the mapping says.
        """
        outside = False
        try:
            outside = _may_name_files(self.model)
            # Weights outside the file are refused: onnxruntime would look for them in a folder, and follow a link out
            # of it; so it is told of one that is not there.
            options.add_session_config_entry(
                "session.model_external_initializers_file_folder_path", _NOWHERE
            )
            # As it does by itself, but for a file named *.ort.
            options.add_session_config_entry("session.load_model_format", "ONNX")
            # A path takes less memory, by the bytes that a session keeps besides its weights. But onnxruntime 1.23 does
            # not hold a path to the folder above.
            source = self.model.read_bytes() if outside else self.model
            session = ort.InferenceSession(
                source, options, providers=providers, enable_fallback=int(fall_back)
            )
        except Exception as error:  # onnxruntime's exceptions share no public base class
            hint = (
                ". Weights in another file are not read; export the model as one file"
                if outside
                else ""
            )
            raise BundleError(
                f"{self.model}: onnxruntime cannot load this file ({error}){hint}"
            ) from error
        embedded = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        if embedded is None:
            raise BundleError(
                f"{self.model}: no {METADATA_KEY!r} in its metadata, so it was not written by cls-export; "
                "cls-export migrate makes a bundle of an older model and its mapping"
            )
        labels = LabelsMapping.from_json(embedded, source=f"the metadata of {self.model}")
        if self.labels is not None and LabelsMapping.load(self.labels) != labels:
            raise BundleError(
                f"{self.labels} and the mapping inside {self.model} differ; one of them was replaced or edited. "
                "Export the bundle again, or delete the one that is wrong"
            )
        _check_signature(session, labels, self.model)
        return session, labels


def _may_name_files(model: Path) -> bool:
    """Say whether a tensor may lie in another file. So may one where a node has that name; that costs memory alone."""
    end = b""
    with model.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            if _KEY_OF_OUTSIDE in end + chunk:
                return True
            end = chunk[1 - len(_KEY_OF_OUTSIDE) :]
    return False


def _check_signature(session: ort.InferenceSession, labels: LabelsMapping, model: Path) -> None:
    found = [
        _described(item.name, item.type, item.shape)
        for item in (*session.get_inputs(), *session.get_outputs())
    ]
    expected = [
        _described("images", "tensor(float)", ["N", 3, *labels.preprocessing.size]),
        _described("logits", "tensor(float)", ["N", labels.num_classes]),
    ]
    if found != expected:
        raise BundleError(
            f"{model}: by its mapping it has the input {expected[0]} and the output {expected[1]}, "
            f"N being free; found {', '.join(found)}"
        )


def _described(name: str, kind: str, shape: list[int | str | None]) -> str:
    free = shape[:1] and not isinstance(shape[0], int)
    return f"{name} {kind} [{', '.join(map(str, ['N', *shape[1:]] if free else shape))}]"
