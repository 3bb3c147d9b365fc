"""An exported bundle on disk: model.onnx, labels_mapping.json, and golden/."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import onnxruntime as ort

from cls_export.contract.bundle_layout import GOLDEN_FOLDER, LABELS_FILE, METADATA_KEY, MODEL_FILE
from cls_export.contract.errors import BundleError
from cls_export.contract.labels_mapping import LabelsMapping

_MISSING_FOLDER = "/cls-export-reads-no-external-data"
_EXTERNAL_DATA_KEY = b"location"
"""Key of the entry that names a tensor's file (onnx.proto, external_data)."""
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Bundle:
    """Paths of an exported model.

    Attributes:
        model: The ONNX file.
        labels: labels_mapping.json; None for a single ONNX file, whose metadata contain it.
        golden: The folder of golden images; None if there is none.
    """

    model: Path
    labels: Path | None
    golden: Path | None

    @classmethod
    def locate(cls, path: str | os.PathLike[str]) -> Self:
        """Return the paths, given the folder of a bundle or a single ONNX file.

        Raises:
            BundleError: There is no bundle, or a file is missing.
        """
        folder = Path(path)
        if folder.is_file():
            return cls(model=folder, labels=None, golden=None)
        if not folder.is_dir():
            raise BundleError(
                f"{folder}: no such bundle; expected a folder with {MODEL_FILE}, or an ONNX file"
            )
        for name in (MODEL_FILE, LABELS_FILE):
            if not (folder / name).is_file():
                raise BundleError(
                    f"{folder}: {name} is missing; a bundle contains {MODEL_FILE} and {LABELS_FILE}"
                )
        golden = folder / GOLDEN_FOLDER
        return cls(
            model=folder / MODEL_FILE,
            labels=folder / LABELS_FILE,
            golden=golden if golden.is_dir() else None,
        )

    def open_session(
        self, providers: list[str], options: ort.SessionOptions, *, allow_fallback: bool = False
    ) -> tuple[ort.InferenceSession, LabelsMapping]:
        """Open the model and read its labels mapping.

        Args:
            providers: onnxruntime execution providers, in order of preference.
            options: Session options; entries that keep the session to this one file are added.
            allow_fallback: Whether onnxruntime may switch to another provider if one fails.

        Raises:
            BundleError: The model is damaged or has no mapping, the mapping beside it differs, or
                the inputs and outputs do not match the mapping.
        """
        session = _open_model(self.model, providers, options, allow_fallback)

        text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        if text is None:
            raise BundleError(
                f"{self.model}: not written by cls-export ({METADATA_KEY!r} is missing from its "
                "metadata). To convert an older model and its mapping, run: cls-export migrate"
            )

        labels = LabelsMapping.from_json(text, source=f"the metadata of {self.model}")
        if self.labels is not None and LabelsMapping.load(self.labels) != labels:
            raise BundleError(
                f"{self.labels} differs from the mapping inside {self.model}. "
                "Export the bundle again, or delete the file that is wrong"
            )
        _check_signature(session, labels, self.model)
        return session, labels


def _open_model(
    model: Path, providers: list[str], options: ort.SessionOptions, allow_fallback: bool
) -> ort.InferenceSession:
    hint = ""
    try:
        # A path needs less memory than bytes. But onnxruntime 1.23 ignores the folder option below
        # for a path, so a model that may name other files is passed as bytes.
        source: Path | bytes = model
        if _may_have_external_data(model):
            hint = ". External data files are not read; export the model as one file"
            source = model.read_bytes()
        # A missing folder keeps onnxruntime from reading external data from other files, even
        # through links.
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", _MISSING_FOLDER
        )
        # The default, except for files named *.ort.
        options.add_session_config_entry("session.load_model_format", "ONNX")
        return ort.InferenceSession(
            source, options, providers=providers, enable_fallback=int(allow_fallback)
        )
    except Exception as error:  # onnxruntime's exceptions have no public base class
        raise BundleError(f"{model}: onnxruntime cannot load this file ({error}){hint}") from error


def _may_have_external_data(model: Path) -> bool:
    """Return whether the file contains the key of external data.

    A node with that name is a harmless false positive.
    """
    overlap = len(_EXTERNAL_DATA_KEY) - 1
    tail = b""
    with model.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            if _EXTERNAL_DATA_KEY in tail + chunk:
                return True
            tail = chunk[-overlap:]
    return False


def _check_signature(session: ort.InferenceSession, labels: LabelsMapping, model: Path) -> None:
    height, width = labels.preprocessing.size
    expected = [
        f"images tensor(float) [N, 3, {height}, {width}]",
        f"logits tensor(float) [N, {labels.num_classes}]",
    ]

    actual = []
    tensors = [*session.get_inputs(), *session.get_outputs()]
    for tensor in tensors:
        actual.append(_describe(tensor.name, tensor.type, tensor.shape))
    if actual != expected:
        raise BundleError(
            f"{model}: the labels mapping needs the input {expected[0]} and the output "
            f"{expected[1]} with a free N; the model has {', '.join(actual)}"
        )


def _describe(name: str, kind: str, shape: Sequence[int | str | None]) -> str:
    sizes = [str(size) for size in shape]
    if sizes and not isinstance(shape[0], int):
        sizes[0] = "N"
    return f"{name} {kind} [{', '.join(sizes)}]"
