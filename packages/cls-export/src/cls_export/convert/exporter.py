"""Export of a PyTorch module to a bundle, with a check that both give the same logits."""

import copy
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from cls_export.bundle.golden import PARITY_BATCH_SIZES, allowed_difference, write_golden
from cls_export.bundle.model_card import CardFigure, write_model_card
from cls_export.bundle.staging import staged_bundle
from cls_export.contract.bundle_layout import GOLDEN_FOLDER, MODEL_FILE
from cls_export.contract.errors import BundleError, MissingExtraError
from cls_export.contract.files import draft_path, remove_drafts
from cls_export.contract.labels_mapping import LabelsMapping
from cls_export.convert.onnx_file import save_model

try:
    import torch
    from torch import Tensor, nn
except ImportError as error:
    raise MissingExtraError(
        f'{error.name} is not installed. To export a module: pip install "cls-export[torch]"'
    ) from error

OPSET = 18
"""The opset that torch's exporter writes without converting."""


def write_bundle(
    module: nn.Module,
    labels: LabelsMapping,
    folder: str | os.PathLike[str],
    golden: Sequence[str | os.PathLike[str]],
    figures: Sequence[CardFigure] = (),
) -> None:
    """Write a bundle (model.onnx, labels_mapping.json, golden/, README.md), replacing an older one.

    Args:
        module: See `export_onnx`.
        labels: The labels mapping.
        folder: The bundle; it appears once it is complete.
        golden: Image files to copy into golden/ with the module's logits.
        figures: Results of an evaluation, for the model card in README.md.

    Raises:
        BundleError: As for `export_onnx`; or `golden` is empty, or `folder` is not a bundle.
        ImageError: A golden image cannot be read or decoded.
    """
    if not golden:
        raise BundleError("a bundle needs at least one golden image, got none")

    deployable = _copy_for_export(module)

    def run_model(images: NDArray[np.float32]) -> NDArray[np.float32]:
        return _run(deployable, images)

    with staged_bundle(folder, labels) as draft:
        export_onnx(module, labels, draft / MODEL_FILE)
        write_golden(draft / GOLDEN_FOLDER, golden, labels, run_model)
        write_model_card(draft, labels, figures)


def export_onnx(module: nn.Module, labels: LabelsMapping, path: str | os.PathLike[str]) -> None:
    """Write one ONNX file, with weights and labels mapping inside, that agrees with the module.

    Args:
        module: Maps float32 [N, 3, H, W] to logits float32 [N, C]. A copy is exported, in
            evaluation mode, in float32, on the CPU; the module itself does not change.
        labels: The labels mapping; it defines H, W, and C.
        path: The file to write, atomically. Drafts of killed processes beside it are deleted.

    Raises:
        BundleError: The module's output is not [N, C], or the file's logits differ from the
            module's by more than `TOLERANCE` at some batch size.
    """
    target = Path(path)
    deployable = _copy_for_export(module)
    example = torch.zeros(2, 3, *labels.preprocessing.size)
    _check_output_shape(deployable, labels, example)

    remove_drafts(target.parent)
    draft = draft_path(target)
    try:
        _write(deployable, labels, example, draft)
        check_parity(deployable, labels, draft)
        os.replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)


def check_parity(module: nn.Module, labels: LabelsMapping, path: str | os.PathLike[str]) -> float:
    """Return the largest logit difference between a module and an ONNX file on random batches.

    Raises a BundleError if it is over `allowed_difference`.
    """
    deployable = _copy_for_export(module)
    session = ort.InferenceSession(Path(path).read_bytes(), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)

    worst = 0.0
    for size in PARITY_BATCH_SIZES:
        images = rng.standard_normal((size, 3, *labels.preprocessing.size), dtype=np.float32)
        expected = _run(deployable, images)
        (actual,) = session.run(["logits"], {"images": images})

        difference = float(np.abs(actual - expected).max())
        allowed = allowed_difference(expected)
        if not difference <= allowed:
            raise BundleError(
                f"{path}: a logit differs from the module's by {difference:.3g} at batch size "
                f"{size}, allowed {allowed:.3g}. Nothing was exported"
            )
        worst = max(worst, difference)
    return worst


def _copy_for_export(module: nn.Module) -> nn.Module:
    exported = copy.deepcopy(module)
    exported.cpu().float()
    exported.eval()
    return exported


def _run(module: nn.Module, images: NDArray[np.float32]) -> NDArray[np.float32]:
    tensor = torch.from_numpy(images)
    with torch.inference_mode():
        output = module(tensor)
    logits: NDArray[np.float32] = output.numpy()
    return logits


def _check_output_shape(module: nn.Module, labels: LabelsMapping, example: Tensor) -> None:
    with torch.inference_mode():
        output = module(example)

    shape = tuple(output.shape)
    expected = (len(example), labels.num_classes)
    if shape != expected:
        raise BundleError(
            f"the module maps {tuple(example.shape)} to {shape}; expected {expected} for the "
            f"{labels.num_classes} classes of the labels mapping"
        )


def _write(module: nn.Module, labels: LabelsMapping, example: Tensor, path: Path) -> None:
    # The example has two images, because torch freezes a batch axis of size 1.
    torch.onnx.export(
        module,
        (example,),
        path,
        dynamo=True,
        verbose=False,
        opset_version=OPSET,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        external_data=False,
    )
    model = onnx.load(path)
    _remove_metadata(model.graph)
    save_model(model, labels, path)


def _remove_metadata(graph: onnx.GraphProto) -> None:
    """Delete the source lines and paths of the exporting machine that torch stores in each node."""
    values = [*graph.input, *graph.output, *graph.value_info, *graph.initializer]
    for item in [graph, *graph.node, *values]:
        item.doc_string = ""
        del item.metadata_props[:]
