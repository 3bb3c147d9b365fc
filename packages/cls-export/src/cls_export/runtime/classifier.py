"""Classify images with onnxruntime, without PyTorch."""

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from os import PathLike
from typing import Literal, overload

import numpy as np
import onnxruntime as ort
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from cls_export.contract.decoding import ImageSource
from cls_export.contract.errors import BundleError, ImageError
from cls_export.runtime.boxes import crop_boxes
from cls_export.runtime.bundle_files import Bundle
from cls_export.runtime.predictions import Prediction, interpret_logits
from cls_export.runtime.tracks import TrackPrediction, aggregate_predictions

Color = Literal["RGB", "BGR"]
"""Channel order of an array. OpenCV uses BGR."""

OnError = Literal["raise", "return"]
"""What to do with an image that cannot be read: raise its error, or return it in its position."""

Images = Iterable[ImageSource]

_IndexedImage = tuple[int, ImageSource]
"""An image and its position in the call."""

_CPU = "CPUExecutionProvider"
_SPIN_DURATION_VERSION = (1, 26)
"""The first onnxruntime with `spin_duration_us`."""
_SPIN_MICROSECONDS = 1


class Classifier:
    """A classifier loaded from a bundle, which defines classes, sizes, and normalization.

    Threads may share it.

    Args:
        bundle: The exported folder, or a single model.onnx.
        providers: onnxruntime execution providers, in order of preference. Each must be available.
        allow_cpu: Whether the CPU may replace unavailable providers; see `providers` for the ones
            in use.
        threads: Threads within one operator; None for one per physical core that this process may
            use. Idle threads sleep after a microsecond, which leaves the cores to other work.
        batch_size: Images that go through the graph at once.
        low_memory: Skip the copies of the weights in the layout of the CPU's vector units. This
            removes most of the peak memory, for 7% more time at 64 px and a third more at 224 px
            (ResNet-18).

    Raises:
        BundleError: The bundle is incomplete, damaged, or contradicts itself, or a provider is not
            available.
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        bundle: str | os.PathLike[str],
        *,
        providers: Sequence[str] = (_CPU,),
        allow_cpu: bool = False,
        threads: int | None = None,
        batch_size: int = 32,
        low_memory: bool = False,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if threads is not None and threads < 1:
            raise ValueError(f"threads must be at least 1, or None, got {threads}")
        if isinstance(providers, str) or not providers:
            raise ValueError(f"providers must be a list of at least one name, got {providers!r}")

        self._batch_size = batch_size
        self._session, self.labels = Bundle.locate(bundle).open_session(
            _select_providers(providers, allow_cpu),
            _session_options(threads, low_memory),
            allow_fallback=allow_cpu,
        )

        if not allow_cpu and self.providers[0] != providers[0]:
            raise BundleError(
                f"onnxruntime fell back to {self.providers}, although {list(providers)} were given"
            )

    @property
    def providers(self) -> list[str]:
        """The execution providers in use, in order of preference."""
        providers: list[str] = self._session.get_providers()
        return providers

    @overload
    def predict(
        self, images: Images, top_k: int = ..., *, color: Color = ...
    ) -> list[Prediction]: ...
    @overload
    def predict(
        self, images: Images, top_k: int = ..., *, color: Color = ..., on_error: OnError
    ) -> list[Prediction | ImageError]: ...
    def predict(
        self, images: Images, top_k: int = 5, *, color: Color = "RGB", on_error: OnError = "raise"
    ) -> list[Prediction] | list[Prediction | ImageError]:
        """Classify any number of images; the predictions have their order.

        Args:
            images: Paths, file bytes, Pillow images, and uint8 arrays [height, width, 3], mixed.
            top_k: Number of classes in each prediction.
            color: Channel order of arrays.
            on_error: `raise` the error of an image that cannot be read, or `return` it in the
                position of the image.

        Raises:
            ImageError: An image cannot be decoded, or is an array of a wrong shape or dtype.
        """
        return list(self.stream(images, top_k, color=color, on_error=on_error))

    @overload
    def stream(
        self, images: Images, top_k: int = ..., *, color: Color = ...
    ) -> Iterator[Prediction]: ...
    @overload
    def stream(
        self, images: Images, top_k: int = ..., *, color: Color = ..., on_error: OnError
    ) -> Iterator[Prediction | ImageError]: ...
    def stream(
        self, images: Images, top_k: int = 5, *, color: Color = "RGB", on_error: OnError = "raise"
    ) -> Iterator[Prediction] | Iterator[Prediction | ImageError]:
        """Classify images as they arrive, in order, with the memory of one batch.

        Arguments and errors are those of `predict`. Each batch takes only its own images from the
        iterable; with `batch_size=1` each prediction comes before the next image is taken.
        """
        if top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {top_k}")
        if on_error not in ("raise", "return"):
            raise ValueError(f"on_error must be 'raise' or 'return', got {on_error!r}")
        _check_color(color)

        batches = _split_batches(images, self._batch_size)
        return self._predict_batches(batches, top_k, color, on_error)

    @overload
    def predict_boxes(
        self,
        frame: NDArray[np.uint8],
        boxes: ArrayLike,
        *,
        margin: float = ...,
        top_k: int = ...,
        color: Color = ...,
    ) -> list[Prediction]: ...
    @overload
    def predict_boxes(
        self,
        frame: NDArray[np.uint8],
        boxes: ArrayLike,
        *,
        margin: float = ...,
        top_k: int = ...,
        color: Color = ...,
        on_error: OnError,
    ) -> list[Prediction | ImageError]: ...
    def predict_boxes(
        self,
        frame: NDArray[np.uint8],
        boxes: ArrayLike,
        *,
        margin: float = 0.0,
        top_k: int = 5,
        color: Color = "RGB",
        on_error: OnError = "raise",
    ) -> list[Prediction] | list[Prediction | ImageError]:
        """Classify boxes of one frame, such as those of a detector.

        Args:
            frame: uint8 [height, width, 3].
            boxes: [M, 4]: left, top, right, bottom in pixels. Boxes are clipped to the frame.
            margin: Added on each side, as a share of the width and height of the box.
            top_k: Number of classes in each prediction.
            color: Channel order of the frame.
            on_error: `raise` the error of a box that is empty or outside the frame, or `return` it
                in the position of the box.

        Raises:
            ImageError: The frame has a wrong shape or dtype, or a box is empty or outside.
            ValueError: The boxes are not [M, 4].
        """
        crops = crop_boxes(frame, boxes, margin)
        images = []
        for crop in crops:
            if not isinstance(crop, ImageError):
                images.append(crop)
            elif on_error == "raise":
                raise crop
        predictions = self.stream(images, top_k, color=color, on_error=on_error)
        results: list[Prediction | ImageError] = []
        for crop in crops:
            if isinstance(crop, ImageError):
                results.append(crop)
            else:
                results.append(next(predictions))
        return results

    def aggregate(
        self,
        predictions: Sequence[Prediction],
        *,
        top_k: int = 5,
        independent_fraction: float = 1.0,
    ) -> TrackPrediction:
        """Combine the predictions for the frames of a track; see `aggregate_predictions`."""
        return aggregate_predictions(
            predictions, self.labels, top_k=top_k, independent_fraction=independent_fraction
        )

    def logits(self, images: Images, *, color: Color = "RGB") -> NDArray[np.float32]:
        """Return the output of the graph for any number of images: float32 [N, C].

        Raises:
            ImageError: An image cannot be decoded, or is an array of a wrong shape or dtype.
        """
        _check_color(color)
        outputs = []
        for batch in _split_batches(images, self._batch_size):
            pixels = [self._load_pixels(image, index, color) for index, image in batch]
            outputs.append(self._run(pixels))

        if not outputs:
            return np.empty((0, self.labels.num_classes), np.float32)
        return np.concatenate(outputs)

    def _predict_batches(
        self, batches: Iterator[list[_IndexedImage]], top_k: int, color: Color, on_error: OnError
    ) -> Iterator[Prediction | ImageError]:
        for batch in batches:
            pixels: list[NDArray[np.uint8]] = []
            errors: dict[int, ImageError] = {}

            for index, image in batch:
                try:
                    pixels.append(self._load_pixels(image, index, color))
                except ImageError as error:
                    if on_error == "raise":
                        raise
                    errors[index] = error

            predictions: list[Prediction] = []
            if pixels:
                logits = self._run(pixels)
                predictions = interpret_logits(logits, self.labels, top_k)

            remaining = iter(predictions)
            for index, _ in batch:
                yield errors[index] if index in errors else next(remaining)

    def _load_pixels(self, image: ImageSource, index: int, color: Color) -> NDArray[np.uint8]:
        if color == "BGR" and isinstance(image, np.ndarray) and image.ndim == 3:
            image = image[..., ::-1]
        try:
            return self.labels.preprocessing.load_pixels(image)
        except ImageError as error:
            if isinstance(image, str | PathLike):  # the message names the file
                raise
            raise ImageError(f"image {index} (counted from 0): {error}") from error

    def _run(self, pixels: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        # For a single image, adding an axis is faster than stacking.
        batch = np.stack(pixels) if len(pixels) > 1 else pixels[0][None]
        images = self.labels.preprocessing.normalize(batch)
        logits: NDArray[np.float32]
        (logits,) = self._session.run(["logits"], {"images": images})
        return logits


def _session_options(threads: int | None, low_memory: bool) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors only; callers cannot act on warnings about the machine
    _shorten_spinning(options)
    options.intra_op_num_threads = threads or _count_restricted_cores()
    if low_memory:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    return options


def _shorten_spinning(options: ort.SessionOptions) -> None:
    """Let idle threads sleep soon.

    By default, idle threads of onnxruntime spin, which takes cores from other processes and from
    descheduled threads of this session. Without any spinning, each operator wakes its threads
    anew, which is slower on an idle machine. Measured by `benchmarks/export_threads.py`.
    """
    major, minor = ort.__version__.split(".")[:2]
    if (int(major), int(minor)) >= _SPIN_DURATION_VERSION:
        options.add_session_config_entry(
            "session.intra_op.spin_duration_us", str(_SPIN_MICROSECONDS)
        )
    else:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")


def _count_restricted_cores() -> int:
    """Return the cores that a container or `taskset` leaves this process.

    Returns 0, the value for onnxruntime's own choice, if the process may use all cores.
    """
    if not hasattr(os, "sched_getaffinity"):  # macOS, Windows
        return 0

    allowed = len(os.sched_getaffinity(0))
    total = os.cpu_count() or allowed
    return allowed if allowed < total else 0


def _select_providers(providers: Sequence[str], allow_cpu: bool) -> list[str]:
    """Return the given providers that this onnxruntime has."""
    available = ort.get_available_providers()
    for name in providers:
        if not isinstance(name, str):
            raise ValueError(f"providers are names such as {available[0]!r}, got {name!r}")

    missing = [name for name in providers if name not in available]
    if missing and not allow_cpu:
        raise BundleError(
            f"execution providers {missing} are not available; this onnxruntime has {available}. "
            "Install an onnxruntime build that has them, or pass allow_cpu=True"
        )

    return [name for name in providers if name in available] or [_CPU]


def _check_color(color: str) -> None:
    if color not in ("RGB", "BGR"):
        raise ValueError(f"color must be 'RGB' or 'BGR', got {color!r}")


def _split_batches(images: Images, size: int) -> Iterator[list[_IndexedImage]]:
    if _is_single_image(images) or not isinstance(images, Iterable):
        raise TypeError(
            f"expected an iterable of images, got {type(images).__name__}; "
            "for a single image, pass a list: predict([image])"
        )
    return _generate_batches(enumerate(images), size)


def _is_single_image(images: object) -> bool:
    """Return whether this is a path, file bytes, a Pillow image, or an array of one image."""
    if isinstance(images, str | bytes | bytearray | memoryview | PathLike | Image.Image):
        return True

    dimensions = getattr(images, "ndim", 1)
    return dimensions in (0, 2, 3)


def _generate_batches(images: Iterator[_IndexedImage], size: int) -> Iterator[list[_IndexedImage]]:
    while batch := list(islice(images, size)):
        yield batch
