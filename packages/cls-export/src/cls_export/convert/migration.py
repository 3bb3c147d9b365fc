"""Convert an older ONNX file and its mapping of four keys to a bundle.

Does not need PyTorch.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import onnxruntime as ort
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveInitializersFromInputsPass

from cls_export.bundle.golden import PARITY_BATCH_SIZES, allowed_difference, write_golden
from cls_export.bundle.model_card import write_model_card
from cls_export.bundle.staging import staged_bundle
from cls_export.contract.bundle_layout import GOLDEN_FOLDER, MAX_LABELS_BYTES, MODEL_FILE
from cls_export.contract.errors import BundleError
from cls_export.contract.files import read_bytes
from cls_export.contract.labels_mapping import LabelsMapping
from cls_export.contract.preprocessing import Resample, Resize
from cls_export.convert.onnx_file import save_model
from cls_export.runtime.classifier import Classifier

_PROBABILITY_OPS = ("Softmax", "Sigmoid")


def migrate(
    model: str | os.PathLike[str],
    mapping: str | os.PathLike[str],
    target: str | os.PathLike[str],
    golden: Sequence[str | os.PathLike[str]],
    *,
    size: tuple[int, int] | None = None,
    resize: Resize | None = None,
    resize_to: int | None = None,
    resample: Resample | None = None,
) -> None:
    """Write a bundle with the logits of an older ONNX file; warn about assumed preprocessing.

    Args:
        model: ONNX file with one input, float32 [N, 3, H, W], and one output, logits float32
            [N, C], with any names. N may be fixed if the graph works for other batch sizes.
        mapping: JSON with num_classes, class_to_idx, idx_to_class, and normalization.
        target: The folder to write; it appears once it is complete.
        golden: Image files to copy into golden/ with the logits of the older file.
        size: H and W, if the model leaves them free.
        resize: See `Preprocessing`, like the next two. None assumes the default.
        resize_to: Needed for `shortest_edge`.
        resample: Filter of the resizing.

    Raises:
        BundleError: The model or the mapping has another form, they contradict each other, or the
            graph works for a single batch size only.
        ImageError: A golden image cannot be read or decoded.
    """
    if not golden:
        raise BundleError("a bundle needs at least one golden image, got none")

    path = Path(model)
    graph = _load_graph(path)
    labels = LabelsMapping.from_legacy(
        read_bytes(mapping, error=BundleError, max_bytes=MAX_LABELS_BYTES),
        size=_resolve_size(graph, path, size),
        resize=resize,
        resize_to=resize_to,
        resample=resample,
    )
    _check_output(graph, labels, path)
    legacy = _LegacyModel(path)
    _rename_and_free_batch(graph, labels)

    with staged_bundle(target, labels) as draft:
        try:
            save_model(onnx_ir.to_proto(graph), labels, draft / MODEL_FILE)
        except onnx.checker.ValidationError as error:
            raise BundleError(f"{path}: the converted ONNX file is invalid ({error})") from error
        _check_parity(legacy, _open_draft(draft, path), path)
        write_golden(draft / GOLDEN_FOLDER, golden, labels, legacy.run)
        write_model_card(draft, labels)


class _LegacyModel:
    """Runs the older file image by image, whatever batch size it takes."""

    def __init__(self, path: Path) -> None:
        try:
            self._session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions have no public base class
            raise BundleError(f"{path}: onnxruntime cannot load this file ({error})") from error

        (images,) = self._session.get_inputs()
        self._input_name = images.name
        self._batch_size = images.shape[0] if isinstance(images.shape[0], int) else 1

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map [N, 3, H, W] to logits [N, C]."""
        rows = []
        for image in images:
            batch = np.repeat(image[None], self._batch_size, axis=0)
            (logits,) = self._session.run(None, {self._input_name: batch})
            rows.append(logits[:1])
        return np.concatenate(rows)


def _load_graph(path: Path) -> onnx_ir.Model:
    try:
        model = onnx_ir.from_proto(onnx.load(path))
    except Exception as error:  # from protobuf, the checker, or the file system
        raise BundleError(f"{path}: not a readable ONNX file ({error})") from error
    RemoveInitializersFromInputsPass()(model)
    return model


def _resolve_size(
    model: onnx_ir.Model, path: Path, size: tuple[int, int] | None
) -> tuple[int, int]:
    """Return the height and width of the input: those of the model, or `size` if it is free."""
    fixed = _get_input_size(model, path)
    if fixed is None:
        if size is None:
            raise BundleError(
                f"{path}: the model leaves height and width free; pass the training size (size)"
            )
        return size
    if size not in (None, fixed):
        raise BundleError(f"{path}: takes {fixed[0]} x {fixed[1]} px, but size is {size}")
    return fixed


def _get_input_size(model: onnx_ir.Model, path: Path) -> tuple[int, int] | None:
    """Return the height and width of the input, or None if both are free."""
    if not _is_float_tensor(model.graph.inputs, (None, 3, None, None)):
        raise BundleError(
            f"{path}: expected one input, float32 [N, 3, H, W]; got "
            f"{_describe(model.graph.inputs)}. Inputs of bytes or with channels last "
            "are not supported"
        )
    height, width = _get_sizes(model.graph.inputs[0])[2:]
    if height is None and width is None:
        return None
    if height is None or width is None:
        raise BundleError(
            f"{path}: only one of height and width is fixed, [{height}, {width}]; "
            "expected both or none"
        )
    return height, width


def _check_output(model: onnx_ir.Model, labels: LabelsMapping, path: Path) -> None:
    outputs = model.graph.outputs
    if not _is_float_tensor(outputs, (None, labels.num_classes)):
        raise BundleError(
            f"{path}: expected one output, float32 [N, {labels.num_classes}] for the classes of "
            f"the mapping; got {_describe(outputs)}"
        )
    producer = outputs[0].producer()
    if producer is not None and producer.op_type in _PROBABILITY_OPS:
        raise BundleError(
            f"{path}: ends in {producer.op_type}, but a bundle outputs logits; remove that node"
        )


def _is_float_tensor(values: Sequence[onnx_ir.Value], shape: tuple[int | None, ...]) -> bool:
    """Return whether there is one value, float32 of this shape; free sizes match any size."""
    if len(values) != 1 or values[0].dtype != onnx_ir.DataType.FLOAT:
        return False

    sizes = _get_sizes(values[0])
    if len(sizes) != len(shape):
        return False

    for actual, expected in zip(sizes, shape, strict=True):
        if actual is not None and expected is not None and actual != expected:
            return False

    return True


def _get_sizes(value: onnx_ir.Value) -> list[int | None]:
    """Return the shape of a value, with None for free sizes."""
    sizes: list[int | None] = []
    for size in value.shape or ():
        sizes.append(size if isinstance(size, int) else None)
    return sizes


def _describe(values: Sequence[onnx_ir.Value]) -> str:
    texts = [f"{value.name!r} {value.dtype} {value.shape}" for value in values]
    return ", ".join(texts) or "none"


def _rename_and_free_batch(model: onnx_ir.Model, labels: LabelsMapping) -> None:
    """Give input and output the names and shapes of a bundle; drop the shapes between them."""
    for node in model.graph.all_nodes():
        for value in node.outputs:
            value.shape = None
    height, width = labels.preprocessing.size
    images = model.graph.inputs[0]
    images.name = "images"
    images.shape = onnx_ir.Shape(["batch", 3, height, width])
    logits = model.graph.outputs[0]
    logits.name = "logits"
    logits.shape = onnx_ir.Shape(["batch", labels.num_classes])


def _open_draft(draft: Path, path: Path) -> Classifier:
    try:
        return Classifier(draft / MODEL_FILE, batch_size=max(PARITY_BATCH_SIZES))
    except BundleError as error:
        raise BundleError(
            f"{path}: the graph does not work with a free batch axis ({error})"
        ) from error


def _check_parity(legacy: _LegacyModel, classifier: Classifier, path: Path) -> None:
    """Check that batches of any size give the logits of the older file."""
    rng = np.random.default_rng(0)
    preprocessing = classifier.labels.preprocessing

    for size in PARITY_BATCH_SIZES:
        pixels = list(rng.integers(0, 256, (size, *preprocessing.size, 3), dtype=np.uint8))
        inputs = [preprocessing(image) for image in pixels]
        expected = legacy.run(np.concatenate(inputs))

        try:
            logits = classifier.logits(pixels)
        except Exception as error:  # onnxruntime's exceptions have no public base class
            raise BundleError(
                f"{path}: the graph does not work for a batch of {size} images ({error})"
            ) from error

        difference = np.inf
        if logits.shape == expected.shape:
            difference = float(np.abs(logits - expected).max())
        if not difference <= allowed_difference(expected):
            raise BundleError(
                f"{path}: a batch of {size} images gives other logits than single images "
                f"(by {difference:.3g})"
            )
