"""An exported bundle on disk: model.onnx, labels_mapping.json, and golden/."""

import io
import os
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple, Self, TypeVar

import onnxruntime as ort

from cls_export.contract.bundle_layout import (
    GOLDEN_FOLDER,
    LABELS_FILE,
    MAX_MODEL_BYTES,
    METADATA_KEY,
    MODEL_FILE,
)
from cls_export.contract.errors import BundleError
from cls_export.contract.files import draft_prefix, open_regular
from cls_export.contract.labels_mapping import LabelsMapping
from cls_export.contract.run_layout import RunPaths
from cls_export.contract.substitutes import HEAD_BYTES, refuse_substitute
from cls_export.runtime.forks import register_session

REPLACED_SUFFIX: Final = ".replaced"
"""Of the hidden folder with the old bundle, while a bundle is replaced in two steps."""

_EXTERNAL_DATA_KEY = b"location"
"""Key of the entry that names a tensor's file (onnx.proto, external_data)."""
_CHUNK_BYTES = 1 << 18  # fits into the L2 cache, in which two passes read it

_ATTEMPTS = 20
_WAIT_SECONDS = 0.02

Result = TypeVar("Result")


class OpenBundle(NamedTuple):
    """A session with its labels mapping.

    Attributes:
        session: The session of the model.
        labels: The mapping inside the model, without hashes of files.
        model_sha256: The hash of model.onnx.
        has_checked_hash: Whether labels_mapping.json states this hash. False for a single ONNX
            file, and for bundles of schema versions 1 and 2.
    """

    session: ort.InferenceSession
    labels: LabelsMapping
    model_sha256: str
    has_checked_hash: bool


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
        kind = _file_type(folder)
        if kind is None:
            raise BundleError(
                f"{folder}: no such bundle; expected a folder with {MODEL_FILE}, or an ONNX file"
            )
        if kind != stat.S_IFDIR:
            return cls(model=folder, labels=None, golden=None)

        for name in (MODEL_FILE, LABELS_FILE):
            if _file_type(folder / name) is None:
                raise BundleError(
                    f"{folder}: {name} is missing; a bundle contains {MODEL_FILE} and {LABELS_FILE}"
                    f"{_run_hint(folder)}"
                )
        golden = folder / GOLDEN_FOLDER
        return cls(
            model=folder / MODEL_FILE,
            labels=folder / LABELS_FILE,
            golden=golden if _file_type(golden) == stat.S_IFDIR else None,
        )

    def open_session(
        self, providers: list[str], options: ort.SessionOptions, *, allow_fallback: bool = False
    ) -> OpenBundle:
        """Open the model and read its labels mapping.

        Args:
            providers: onnxruntime execution providers, in order of preference.
            options: Session options; see `build_session_options`.
            allow_fallback: Whether onnxruntime may switch to another provider if one fails.

        Raises:
            BundleError: The model is damaged or has no mapping, the mapping beside it differs or
                states another hash, or the inputs and outputs do not match the mapping.
        """
        file_labels = LabelsMapping.load(self.labels) if self.labels else None

        with open_regular(self.model, error=BundleError, max_bytes=MAX_MODEL_BYTES) as stream:
            refuse_substitute(self.model, stream.peek(HEAD_BYTES))
            scan = _scan(stream)
            if file_labels is not None:
                self._check_hash(file_labels, scan.sha256)
            session = _open_model(self.model, stream, scan, providers, options, allow_fallback)
        register_session(session)

        labels = _read_embedded_labels(session, self.model)
        if file_labels is not None and file_labels.without_file_hashes() != labels:
            raise BundleError(
                f"{self.labels} differs from the mapping inside {self.model}. "
                "Export the bundle again, or delete the file that is wrong"
            )
        _check_signature(session, labels, self.model)

        has_checked_hash = file_labels is not None and file_labels.model_sha256 is not None
        return OpenBundle(session, labels, scan.sha256, has_checked_hash)

    def _check_hash(self, labels: LabelsMapping, model_sha256: str) -> None:
        if labels.model_sha256 is None:
            if labels.schema_version < 3:
                return
            raise BundleError(
                f"{self.labels}: model_sha256 and golden_sha256 are missing; the mapping of a "
                "bundle states them. Export the bundle again"
            )
        if labels.model_sha256 != model_sha256:
            raise BundleError(
                f"{self.model} is damaged or belongs to another bundle: its SHA-256 is "
                f"{model_sha256}, {self.labels} states {labels.model_sha256}. "
                "Copy or export the bundle again"
            )


def read_unless_replaced(
    path: str | os.PathLike[str],
    read: Callable[[], Result],
    *,
    is_complete: Callable[[Result], bool] = lambda _: True,
) -> Result:
    """Read a bundle that another process may replace in the meantime.

    Repeats `read` if it raises a BundleError, or `is_complete` is false for its result, and the
    bundle has been replaced since `read` began.
    """
    folder = Path(path)
    for _ in range(_ATTEMPTS):
        before = _identify(folder)
        try:
            result = read()
        except BundleError:
            if before == _identify(folder) and not find_replaced(folder):
                raise
        else:
            if is_complete(result) or before == _identify(folder):
                return result
        time.sleep(_WAIT_SECONDS)
    return read()


def find_replaced(target: Path) -> list[Path]:
    """Return the old bundles beside a bundle that is, or was, replaced in two steps."""
    prefix = draft_prefix(target)
    try:
        siblings = list(target.parent.iterdir())
    except OSError:
        return []
    replaced = [path for path in siblings if path.name.endswith(REPLACED_SUFFIX)]
    return [path for path in replaced if path.name.startswith(prefix)]


def _run_hint(folder: Path) -> str:
    bundle = RunPaths(folder).bundle
    if _file_type(bundle / MODEL_FILE) is None:
        return ""
    return f". The bundle of this run is {bundle}"


def _file_type(path: Path) -> int | None:
    """Return the type of a file, such as `stat.S_IFDIR`; None if it is missing.

    Raises:
        BundleError: The path cannot be looked up.
    """
    try:
        return stat.S_IFMT(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BundleError(f"{path}: cannot be read ({reason})") from error


def _identify(folder: Path) -> list[tuple[int, ...] | None]:
    """Return numbers that change when the bundle is replaced."""
    identity: list[tuple[int, ...] | None] = []
    for path in (folder, folder / LABELS_FILE, folder / MODEL_FILE):
        try:
            state = path.stat()
        except (OSError, ValueError):
            identity.append(None)
        else:
            identity.append((state.st_dev, state.st_ino, state.st_mtime_ns, state.st_size))
    return identity


class _Scan(NamedTuple):
    sha256: str
    may_have_external_data: bool
    """Whether the file contains the key of external data. A node with that name is a harmless
    false positive."""


def _scan(stream: io.BufferedIOBase) -> _Scan:
    overlap = len(_EXTERNAL_DATA_KEY) - 1
    buffer = bytearray(overlap + _CHUNK_BYTES)  # starts with the end of the previous chunk
    chunk = memoryview(buffer)[overlap:]
    digest = sha256()
    has_key = False
    while size := stream.readinto(chunk):
        digest.update(chunk[:size])
        has_key = has_key or buffer.find(_EXTERNAL_DATA_KEY, 0, overlap + size) >= 0
        buffer[:overlap] = buffer[size : size + overlap]
    return _Scan(digest.hexdigest(), has_key)


def _open_model(
    model: Path,
    stream: io.BufferedReader,
    scan: _Scan,
    providers: list[str],
    options: ort.SessionOptions,
    allow_fallback: bool,
) -> ort.InferenceSession:
    """Open the file of the stream, even if another file has its path by now."""
    # The stream's own path needs less memory than bytes. Only Linux has one.
    stream_path = Path(f"/proc/self/fd/{stream.fileno()}")
    source: Path | bytes = stream_path
    # onnxruntime 1.23 reads external data for a path, whatever the options say.
    if scan.may_have_external_data or not stream_path.exists():
        stream.seek(0)
        source = stream.read()

    try:
        return ort.InferenceSession(
            source, options, providers=providers, enable_fallback=int(allow_fallback)
        )
    except Exception as error:  # onnxruntime's exceptions have no public base class
        reason = str(error).replace(str(stream_path), str(model))
        hint = ""
        if scan.may_have_external_data:
            hint = ". External data files are not read; export the model as one file"
        raise BundleError(f"{model}: onnxruntime cannot load this file ({reason}){hint}") from error


def _read_embedded_labels(session: ort.InferenceSession, model: Path) -> LabelsMapping:
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    if text is None:
        raise BundleError(
            f"{model}: not written by cls-export ({METADATA_KEY!r} is missing from its "
            "metadata). To convert an older model and its mapping, run: cls-export migrate"
        )
    return LabelsMapping.from_json(text, source=f"the metadata of {model}")


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
