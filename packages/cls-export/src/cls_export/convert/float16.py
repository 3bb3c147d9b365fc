"""A bundle whose graph computes in float16, in half the bytes. Needs `cls-export[torch]`, but no PyTorch."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from cls_export.contract.errors import BundleError
from cls_export.contract.preprocessing import ImageSource, Preprocessing
from cls_export.convert.reduced_precision import ConversionReport, convert_bundle

try:
    import onnx
    import onnx_ir
    from onnxruntime.transformers.float16 import convert_float_to_float16
except ImportError as error:
    raise ImportError(
        f'{error.name} is missing; writing ONNX files needs: pip install "cls-export[torch]"'
    ) from error

_LARGEST = float(np.finfo(np.float16).max)
_LOOKED_AT = 64
_TOLERANCE = 2.0**-8
"""Eight roundings of float16, which keeps 11 bits. A GPU rounds what each layer gives, onnxruntime on a CPU the weights
alone (ResNet-18 on jersey numbers: 6.6e-4 and 1.6e-4 of the largest logit), so that to measure here is not enough."""


def convert_to_float16(
    bundle: str | os.PathLike[str],
    target: str | os.PathLike[str],
    eval_images: Sequence[ImageSource],
    truth: Sequence[str] | None = None,
    *,
    max_accuracy_drop: float = 0.005,
) -> ConversionReport:
    """Write a float16 bundle beside a float32 one. Its input and output stay float32, as every bundle's.

    It is half as large, and made for GPUs; onnxruntime computes it in float32 on a CPU, no faster than before.

    Args:
        bundle: the float32 one, a folder.
        target: the folder to write; it appears only once it is complete.
        eval_images: images that the model was not trained on.
        truth: their classes; None judges the float16 model by the float32 one.
        max_accuracy_drop: share of `eval_images` by which the float16 model may answer fewer rightly.

    Raises:
        BundleError: the loss is larger, or float16 cannot hold what some layer gives; or as `Classifier`.
        ImageError: an image cannot be decoded.
    """

    def rewrite(source: Path, _: Path, preprocessing: Preprocessing) -> onnx.ModelProto:
        _refuse_overflow(source, preprocessing, eval_images[:_LOOKED_AT])
        model = onnx_ir.from_proto(convert_float_to_float16(onnx.load(source), keep_io_types=True))
        model.graph.sort()  # the casts of input and output were put at the end
        halved: onnx.ModelProto = onnx_ir.to_proto(model)
        return halved

    return convert_bundle(
        bundle,
        target,
        "float16",
        rewrite,
        eval_images,
        truth,
        max_accuracy_drop=max_accuracy_drop,
        tolerance=_TOLERANCE,
    )


def _refuse_overflow(
    source: Path, preprocessing: Preprocessing, images: Sequence[ImageSource]
) -> None:
    """Look at what every node gives: a CPU computes these nodes in float32, where nothing would be amiss."""
    model = onnx.load(source)
    known = {value.name for value in model.graph.output}
    for node in model.graph.node:
        model.graph.output.extend(
            onnx.ValueInfoProto(name=name) for name in node.output if name and name not in known
        )
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs() if output.type == "tensor(float)"]
    for image in images:
        for name, values in zip(
            names, session.run(names, {"images": preprocessing(image)}), strict=True
        ):
            largest = float(np.abs(values).max(initial=0.0))
            if not largest <= _LARGEST:
                raise BundleError(
                    f"{source}: {name!r} reaches {largest:.3g} on an image to judge by, and float16 ends at "
                    f"{_LARGEST:,.0f}; nothing was written"
                )
