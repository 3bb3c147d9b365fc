"""A bundle made of an older ONNX file and its mapping of four keys. Needs `cls-export[torch]`, but no PyTorch."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from cls_export.bundle.golden import allowed_difference, write_golden
from cls_export.bundle.onnx_file import save_model
from cls_export.bundle.staging import staged_bundle
from cls_export.contract.bundle_layout import GOLDEN_FOLDER, LABELS_FILE, MODEL_FILE
from cls_export.contract.errors import BundleError
from cls_export.contract.labels_mapping import LabelsMapping
from cls_export.contract.preprocessing import Resample, Resize
from cls_export.runtime.classifier import Classifier

try:
    import onnx
    import onnx_ir
    from onnx_ir.passes.common import RemoveInitializersFromInputsPass
except ImportError as error:
    raise ImportError(
        f'{error.name} is missing; writing ONNX files needs: pip install "cls-export[torch]"'
    ) from error

_BATCHES = (1, 2, 7, 64)
_PROBABILITIES = ("Softmax", "Sigmoid")


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
    """Write a bundle that answers as an older ONNX file does, and warn of what nobody has said about it.

    Args:
        model: has one input, float32 [N, 3, H, W], and one output, logits float32 [N, C], by whatever names; N may be
            fixed, if the graph works for others.
        mapping: JSON with num_classes, class_to_idx, idx_to_class and normalization.
        target: the folder to write; it appears only once it is complete.
        golden: image files, of which golden/ keeps the older file's logits.
        size: H and W, where the model leaves them free.
        resize: as in `Preprocessing`, as are `resize_to` and `resample`; None assumes its default.
        resize_to: for `shortest_edge`.
        resample: Pillow's filter.

    Raises:
        BundleError: model or mapping are of another form, contradict each other, or the graph works for one N alone.
        ImageError: a golden image cannot be decoded.
    """
    if not golden:
        raise BundleError("a bundle needs at least one golden image, or it could never be verified")
    graph = _loaded(Path(model))
    fixed = _input_size(graph, Path(model))
    if fixed is None and size is None:
        raise BundleError(
            f"{model}: leaves height and width free; say which the network was trained at (size)"
        )
    if fixed is not None and size not in (None, fixed):
        raise BundleError(f"{model}: takes {fixed[0]} x {fixed[1]} px, and size says {size}")
    labels = LabelsMapping.from_legacy(
        _read(Path(mapping)),
        size=fixed or size or (0, 0),
        resize=resize,
        resize_to=resize_to,
        resample=resample,
    )
    _check_output(graph, labels, Path(model))
    older = _Older(Path(model))
    _adapt(graph, labels)
    with staged_bundle(target) as draft:
        try:
            save_model(onnx_ir.to_proto(graph), labels, draft / MODEL_FILE)
        except onnx.checker.ValidationError as error:
            raise BundleError(f"{model}: becomes no valid ONNX file ({error})") from error
        labels.save(draft / LABELS_FILE)
        _check_batches(older, _opened(draft, Path(model)), Path(model))
        write_golden(draft / GOLDEN_FOLDER, golden, labels, older)


class _Older:
    """Gives the logits of the older file, image by image, whatever number of them it takes."""

    def __init__(self, model: Path) -> None:
        try:
            self._session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions share no public base class
            raise BundleError(f"{model}: onnxruntime cannot load this file ({error})") from error
        (entry,) = self._session.get_inputs()
        self._name, batch = entry.name, entry.shape[0]
        self._batch = batch if isinstance(batch, int) else 1

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map [N, 3, H, W] to [N, C]."""
        copies = (np.repeat(image[None], self._batch, axis=0) for image in images)
        return np.concatenate(
            [self._session.run(None, {self._name: each})[0][:1] for each in copies]
        )


def _loaded(model: Path) -> onnx_ir.Model:
    try:
        graph = onnx_ir.from_proto(onnx.load(model))
    except Exception as error:  # protobuf's exceptions, the checker's and the file system's
        raise BundleError(f"{model}: not a readable ONNX file ({error})") from error
    RemoveInitializersFromInputsPass()(graph)
    return graph


def _read(mapping: Path) -> bytes:
    try:
        return mapping.read_bytes()
    except OSError as error:
        raise BundleError(f"{mapping}: cannot be read ({error.strerror})") from error


def _input_size(model: onnx_ir.Model, path: Path) -> tuple[int, int] | None:
    """Return the input's height and width, or None where both are free."""
    shapes = [_shape(value) for value in model.graph.inputs]
    is_images = len(shapes) == 1 and len(shapes[0]) == 4 and shapes[0][1] in (3, None)
    if not is_images or model.graph.inputs[0].dtype != onnx_ir.DataType.FLOAT:
        raise BundleError(
            f"{path}: expected one input, float32 [N, 3, H, W]; found {_described(model.graph.inputs)}. "
            "Images as bytes or channels last need another graph"
        )
    height, width = shapes[0][2:]
    if (height is None) != (width is None):
        raise BundleError(
            f"{path}: fixes one of height and width, [{height}, {width}]; expected both or none"
        )
    return None if height is None else (height, width)


def _check_output(model: onnx_ir.Model, labels: LabelsMapping, path: Path) -> None:
    shapes = [_shape(value) for value in model.graph.outputs]
    is_logits = (
        len(shapes) == 1 and len(shapes[0]) == 2 and shapes[0][1] in (labels.num_classes, None)
    )
    if not is_logits or model.graph.outputs[0].dtype != onnx_ir.DataType.FLOAT:
        raise BundleError(
            f"{path}: expected one output, float32 [N, {labels.num_classes}] for the mapping's classes; "
            f"found {_described(model.graph.outputs)}"
        )
    producer = model.graph.outputs[0].producer()
    if producer is not None and producer.op_type in _PROBABILITIES:
        raise BundleError(
            f"{path}: ends in {producer.op_type}; a bundle's graph gives logits, so leave that node out"
        )


def _shape(value: onnx_ir.Value) -> list[Any]:
    """Return the sizes, None for each that is free."""
    return [size if isinstance(size, int) else None for size in value.shape or ()]


def _described(values: Sequence[onnx_ir.Value]) -> str:
    return ", ".join(f"{value.name!r} {value.dtype} {value.shape}" for value in values) or "none"


def _adapt(model: onnx_ir.Model, labels: LabelsMapping) -> None:
    """Give input and output the names and shapes of a bundle's; shapes between them follow anew."""
    (images,), (logits,) = model.graph.inputs, model.graph.outputs
    for node in model.graph.all_nodes():
        for value in node.outputs:
            value.shape = None
    images.name, images.shape = "images", onnx_ir.Shape(["batch", 3, *labels.preprocessing.size])
    logits.name, logits.shape = "logits", onnx_ir.Shape(["batch", labels.num_classes])


def _opened(draft: Path, path: Path) -> Classifier:
    try:
        return Classifier(draft, batch_size=max(_BATCHES))
    except BundleError as error:
        raise BundleError(
            f"{path}: does not work for any number of images as declared ({error})"
        ) from error


def _check_batches(older: _Older, classifier: Classifier, path: Path) -> None:
    draws, preprocessing = np.random.default_rng(0), classifier.labels.preprocessing
    for size in _BATCHES:
        pixels = list(draws.integers(0, 256, (size, *preprocessing.size, 3), dtype=np.uint8))
        expected = older(np.concatenate([preprocessing(each) for each in pixels]))
        try:
            found = classifier.logits(pixels)
        except Exception as error:  # onnxruntime's exceptions share no public base class
            raise BundleError(
                f"{path}: the graph does not work for {size} images at once ({error})"
            ) from error
        difference = (
            float(np.abs(found - expected).max()) if found.shape == expected.shape else np.inf
        )
        if not difference <= allowed_difference(expected):
            raise BundleError(
                f"{path}: answers {size} images at once otherwise than one by one (by {difference:.3g})"
            )
