"""A bundle whose graph computes in int8. Needs `cls-export[torch]`, but no PyTorch."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cls_export.contract.errors import BundleError
from cls_export.contract.preprocessing import ImageSource, Preprocessing
from cls_export.convert.reduced_precision import ConversionReport, convert_bundle

try:
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process
except ImportError as error:
    raise ImportError(
        f'{error.name} is missing; writing ONNX files needs: pip install "cls-export[torch]"'
    ) from error

_BATCH = 32


def quantize_bundle(
    bundle: str | os.PathLike[str],
    target: str | os.PathLike[str],
    calibration: Sequence[ImageSource],
    eval_images: Sequence[ImageSource],
    truth: Sequence[str] | None = None,
    *,
    max_accuracy_drop: float = 0.005,
) -> ConversionReport:
    """Write an int8 bundle beside a float32 one: static quantisation, weights signed and by channel.

    Activations are unsigned: with both signed, onnxruntime has no fast kernel on a CPU. A machine without VNNI gains
    little, and may add up its 16-bit intermediate results less exactly.

    Args:
        bundle: the float32 one, a folder.
        target: the folder to write; it appears only once it is complete.
        calibration: training images, a few hundred, from which the ranges of activations are taken.
        eval_images: images that the model was not trained on.
        truth: their classes; None judges the int8 model by the float32 one.
        max_accuracy_drop: share of `eval_images` by which the int8 model may answer fewer rightly.

    Raises:
        BundleError: the loss is larger; or as `Classifier`.
        ImageError: an image cannot be decoded.
    """
    if not calibration:
        raise BundleError("quantising needs training images to calibrate on, got none")

    def rewrite(source: Path, scratch: Path, preprocessing: Preprocessing) -> onnx.ModelProto:
        prepared, quantized = scratch / "prepared.onnx", scratch / "quantized.onnx"
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            quantized,
            _Images(preprocessing, calibration),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return onnx.load(quantized)

    return convert_bundle(
        bundle, target, "int8", rewrite, eval_images, truth, max_accuracy_drop=max_accuracy_drop
    )


class _Images(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime is not typed
    """Hands out model input, a batch at a time."""

    def __init__(self, preprocessing: Preprocessing, images: Sequence[ImageSource]) -> None:
        self._batches = self._read(preprocessing, images)

    def get_next(self) -> dict[str, Any] | None:
        """Return the next batch, and None at the end."""
        return next(self._batches, None)

    def _read(
        self, preprocessing: Preprocessing, images: Sequence[ImageSource]
    ) -> Iterator[dict[str, Any]]:
        for start in range(0, len(images), _BATCH):
            pixels = np.stack(
                [preprocessing.pixels(image) for image in images[start : start + _BATCH]]
            )
            yield {"images": preprocessing.normalize(pixels)}
