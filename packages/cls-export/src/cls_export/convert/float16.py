"""Convert a bundle to float16, at half the size. Does not need PyTorch."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import onnxruntime as ort
from onnxruntime.transformers.float16 import convert_float_to_float16

from cls_export.contract.decoding import ImageSource
from cls_export.contract.errors import ConversionError
from cls_export.contract.preprocessing import Preprocessing
from cls_export.convert.reduced_precision import ConversionReport, convert_bundle

_FLOAT16_MAX = float(np.finfo(np.float16).max)
_OVERFLOW_CHECK_IMAGES = 64
_TOLERANCE = 2.0**-8
"""Eight roundings of float16, which has 11 significant bits.

A GPU rounds the output of each layer, onnxruntime on a CPU only the weights (ResNet-18 on jersey
numbers: 6.6e-4 and 1.6e-4 of the largest logit), so a measurement on a CPU is not enough."""


def convert_to_float16(
    bundle: str | os.PathLike[str],
    target: str | os.PathLike[str],
    eval_images: Sequence[ImageSource],
    eval_labels: Sequence[str] | None = None,
    *,
    max_accuracy_drop: float = 0.005,
) -> ConversionReport:
    """Write a float16 bundle with float32 input and output, like every bundle.

    It has half the size and is meant for GPUs: on a CPU, onnxruntime computes it in float32, no
    faster than before. Arguments and errors are those of `convert_bundle`. A layer whose output
    overflows float16 raises a ConversionError too.
    """

    def rewrite(source: Path, _: Path, preprocessing: Preprocessing) -> onnx.ModelProto:
        _check_range(source, preprocessing, eval_images[:_OVERFLOW_CHECK_IMAGES])
        float16_model = convert_float_to_float16(onnx.load(source), keep_io_types=True)
        model = onnx_ir.from_proto(float16_model)
        model.graph.sort()  # the converter appends the casts of input and output at the end
        converted: onnx.ModelProto = onnx_ir.to_proto(model)
        return converted

    return convert_bundle(
        bundle,
        target,
        "float16",
        rewrite,
        eval_images,
        eval_labels,
        max_accuracy_drop=max_accuracy_drop,
        min_tolerance=_TOLERANCE,
    )


def _check_range(source: Path, preprocessing: Preprocessing, images: Sequence[ImageSource]) -> None:
    """Check that the outputs of all nodes fit into float16.

    A CPU computes the converted graph in float32, so evaluating it would not show an overflow.
    """
    model = onnx.load(source)
    outputs = {value.name for value in model.graph.output}
    for node in model.graph.node:
        for name in node.output:
            if name and name not in outputs:
                model.graph.output.append(onnx.ValueInfoProto(name=name))

    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs() if output.type == "tensor(float)"]

    for image in images:
        values = session.run(names, {"images": preprocessing(image)})
        for name, value in zip(names, values, strict=True):
            largest = float(np.abs(value).max(initial=0.0))
            if not largest <= _FLOAT16_MAX:
                raise ConversionError(
                    f"{source}: {name!r} reaches {largest:.3g} on an evaluation image, over the "
                    f"largest float16, {_FLOAT16_MAX:,.0f}. Nothing was written"
                )
