"""From a PyTorch module to a bundle, and the proof that both give the same answers. Needs `cls-export[torch]`."""

import copy
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from cls_export.bundle.golden import allowed_difference, write_golden
from cls_export.bundle.onnx_file import save_model
from cls_export.bundle.staging import staged_bundle
from cls_export.contract.bundle_layout import GOLDEN_FOLDER, LABELS_FILE, MODEL_FILE
from cls_export.contract.errors import BundleError
from cls_export.contract.labels_mapping import LabelsMapping

try:
    import onnx
    import torch
    from torch import Tensor, nn
except ImportError as error:
    raise ImportError(
        f'{error.name} is missing; exporting needs: pip install "cls-export[torch]"'
    ) from error

OPSET = 18
"""The dialect that torch's exporter writes natively, so nothing is converted up or down."""


def export_onnx(module: nn.Module, labels: LabelsMapping, path: str | os.PathLike[str]) -> None:
    """Write one ONNX file, weights and labels mapping inside, and check that it answers as the module does.

    Args:
        module: maps float32 [N, 3, H, W] to logits float32 [N, C]. A copy of it is exported, in evaluation mode, in
            float32, on the CPU; the module itself stays as it is.
        labels: says H, W and C.
        path: the file to write; a reader sees it whole or not at all.

    Raises:
        BundleError: the module's output is not [N, C], or the written file differs from the module by more than
            `TOLERANCE` at some batch size.
    """
    target = Path(path)
    deployable = _deployable(module)
    example = torch.zeros(2, 3, *labels.preprocessing.size)
    _check_output(deployable, labels, example)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-") as folder:
        draft = Path(folder) / target.name
        _write(deployable, labels, example, draft)
        parity_error(deployable, labels, draft)
        os.replace(draft, target)


def parity_error(module: nn.Module, labels: LabelsMapping, path: str | os.PathLike[str]) -> float:
    """Return the largest absolute difference of a logit between a module and an ONNX file, over random batches.

    Raises:
        BundleError: it is over `TOLERANCE`, which grows with the logits.
    """
    deployable = _deployable(module)
    session = ort.InferenceSession(Path(path).read_bytes(), providers=["CPUExecutionProvider"])
    generator = np.random.default_rng(0)
    worst = 0.0
    for size in (1, 2, 7, 64):
        images = generator.standard_normal((size, 3, *labels.preprocessing.size), dtype=np.float32)
        with torch.inference_mode():
            expected = deployable(torch.from_numpy(images)).numpy()
        difference = float(np.abs(session.run(["logits"], {"images": images})[0] - expected).max())
        allowed = allowed_difference(expected)
        if not difference <= allowed:
            raise BundleError(
                f"{path} differs from the module by {difference:.3g} in a logit at batch size {size}, "
                f"over {allowed:.3g}; nothing was exported"
            )
        worst = max(worst, difference)
    return worst


def write_bundle(
    module: nn.Module,
    labels: LabelsMapping,
    folder: str | os.PathLike[str],
    golden: Sequence[str | os.PathLike[str]],
) -> None:
    """Write a whole bundle, replacing an older one: model.onnx, labels_mapping.json and golden/.

    Args:
        module: as for `export_onnx`.
        labels: written into the ONNX file and beside it.
        folder: the bundle; it appears only once it is complete.
        golden: image files to copy into golden/ with the logits that `module` gives for them.

    Raises:
        BundleError: as for `export_onnx`; or `golden` is empty, or `folder` holds something else than a bundle.
        ImageError: a golden image cannot be decoded.
    """
    if not golden:
        raise BundleError("a bundle needs at least one golden image, or it could never be verified")
    reference = _deployable(module)

    def answer(images: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            logits: NDArray[np.float32] = reference(torch.from_numpy(images)).numpy()
        return logits

    with staged_bundle(folder) as draft:
        export_onnx(module, labels, draft / MODEL_FILE)
        labels.save(draft / LABELS_FILE)
        write_golden(draft / GOLDEN_FOLDER, golden, labels, answer)


def _deployable(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module).cpu().float().eval()


def _check_output(module: nn.Module, labels: LabelsMapping, example: Tensor) -> None:
    with torch.inference_mode():
        shape = tuple(cast(Tensor, module(example)).shape)
    if shape != (len(example), labels.num_classes):
        raise BundleError(
            f"the module maps {tuple(example.shape)} to {shape}, and the labels mapping has "
            f"{labels.num_classes} classes; expected {(len(example), labels.num_classes)}"
        )


def _write(module: nn.Module, labels: LabelsMapping, example: Tensor, path: Path) -> None:
    # An example batch of 1 would freeze the batch axis; hence the 2.
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
    _remove_traces(model)
    save_model(model, labels, path)


def _remove_traces(model: "onnx.ModelProto") -> None:
    """Take out what torch notes of its tracing: source lines and paths of the exporting machine, in every node."""
    graph = model.graph
    for part in (
        graph,
        *graph.node,
        *graph.input,
        *graph.output,
        *graph.value_info,
        *graph.initializer,
    ):
        part.doc_string = ""
        del part.metadata_props[:]
