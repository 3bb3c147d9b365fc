"""Convert a bundle to int8. Does not need PyTorch."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from cls_export.contract.decoding import ImageSource
from cls_export.contract.errors import BundleError
from cls_export.contract.preprocessing import Preprocessing
from cls_export.convert.reduced_precision import ConversionReport, convert_bundle

_BATCH_SIZE = 32


def quantize_bundle(
    bundle: str | os.PathLike[str],
    target: str | os.PathLike[str],
    calibration_images: Sequence[ImageSource],
    eval_images: Sequence[ImageSource],
    eval_labels: Sequence[str] | None = None,
    *,
    max_accuracy_drop: float = 0.005,
) -> ConversionReport:
    """Write an int8 bundle by static quantization, with signed per-channel weights.

    Activations are unsigned, because onnxruntime has no fast CPU kernel for signed activations and
    weights. A CPU without VNNI gains little, and may saturate 16-bit intermediate sums.

    `calibration_images` are a few hundred training images, for the ranges of the activations. Other
    arguments and errors are those of `convert_bundle`.
    """
    if not calibration_images:
        raise BundleError("int8 needs training images for calibration, got none")

    def rewrite(source: Path, scratch: Path, preprocessing: Preprocessing) -> onnx.ModelProto:
        prepared = scratch / "prepared.onnx"
        quantized = scratch / "quantized.onnx"
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            quantized,
            _CalibrationReader(preprocessing, calibration_images),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return onnx.load(quantized)

    return convert_bundle(
        bundle,
        target,
        "int8",
        rewrite,
        eval_images,
        eval_labels,
        max_accuracy_drop=max_accuracy_drop,
    )


class _CalibrationReader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime is not typed
    """Batches of model input."""

    def __init__(self, preprocessing: Preprocessing, images: Sequence[ImageSource]) -> None:
        self._preprocessing = preprocessing
        self._remaining = list(images)

    def get_next(self) -> dict[str, Any] | None:
        """Return the next batch, or None at the end."""
        batch = self._remaining[:_BATCH_SIZE]
        if not batch:
            return None
        self._remaining = self._remaining[_BATCH_SIZE:]
        images = [self._preprocessing.load_pixels(image) for image in batch]
        pixels = np.stack(images)
        inputs = self._preprocessing.normalize(pixels)
        return {"images": inputs}
