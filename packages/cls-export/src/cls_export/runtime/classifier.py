"""Classify images with onnxruntime, without PyTorch."""

import copy
import os
from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal, Self, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from cls_export.contract.decoding import ImageSource
from cls_export.contract.errors import BundleError, ImageError
from cls_export.contract.labels_mapping import LabelsMapping
from cls_export.runtime.arguments import MAX_THREADS, check_count
from cls_export.runtime.boxes import crop_boxes
from cls_export.runtime.bundle_files import Bundle, OpenBundle, read_unless_replaced
from cls_export.runtime.predictions import Prediction, interpret_logits
from cls_export.runtime.session_options import CPU, build_session_options, select_providers
from cls_export.runtime.tracks import TrackPrediction, aggregate_predictions

Color = Literal["RGB", "BGR"]
"""Channel order of an array. OpenCV uses BGR."""

OnError = Literal["raise", "return"]
"""What to do with an image that cannot be read: raise its error, or return it in its position."""

Images = Iterable[ImageSource | bytearray | memoryview]


class _Batch:
    """Images that go through the graph at once.

    Attributes:
        pixels: uint8 [H, W, 3] of each image that could be read.
        errors: For each image, its error, or None.
    """

    def __init__(self) -> None:
        self.pixels: list[NDArray[np.uint8]] = []
        self.errors: list[ImageError | None] = []


class Classifier:
    """A classifier loaded from a bundle, which defines classes, sizes, and normalization.

    Threads may share it. It can be pickled: the copy reopens the bundle, and so does a process that
    was forked. A copy of `copy.copy` or `copy.deepcopy` shares the session.

    Attributes:
        labels: The labels mapping.
        model_sha256: The hash of model.onnx.
        has_checked_hash: Whether the bundle states this hash. False for a single ONNX file, and for
            bundles of schema versions 1 and 2, where damage may go unnoticed.

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
            available. On reopening: the bundle has changed.
        ValueError: An argument is out of range.
    """

    labels: LabelsMapping
    model_sha256: str
    has_checked_hash: bool

    def __init__(
        self,
        bundle: str | os.PathLike[str],
        *,
        providers: Sequence[str] = (CPU,),
        allow_cpu: bool = False,
        threads: int | None = None,
        batch_size: int = 32,
        low_memory: bool = False,
    ) -> None:
        self._batch_size = check_count("batch_size", batch_size)
        self._threads = None
        if threads is not None:
            self._threads = check_count("threads", threads, largest=MAX_THREADS, or_none=True)
        if isinstance(providers, str) or not providers:
            raise ValueError(f"providers must be a list of at least one name, got {providers!r}")

        self._providers = tuple(providers)
        self._allow_cpu = allow_cpu
        self._low_memory = low_memory

        opened = self._open_bundle(bundle)
        self._path = Path(bundle).absolute()  # the working directory may change
        self.labels = opened.labels
        self.model_sha256 = opened.model_sha256
        self.has_checked_hash = opened.has_checked_hash
        self._original_labels = opened.labels
        self._session = opened.session
        self._process = os.getpid()

    def _open_bundle(self, path: str | os.PathLike[str]) -> OpenBundle:
        def open_session() -> OpenBundle:
            return Bundle.locate(path).open_session(
                select_providers(self._providers, self._allow_cpu),
                build_session_options(self._threads, self._low_memory),
                allow_fallback=self._allow_cpu,
            )

        opened = read_unless_replaced(path, open_session)
        in_use = opened.session.get_providers()
        if not self._allow_cpu and in_use[0] != self._providers[0]:
            raise BundleError(
                f"onnxruntime fell back to {in_use}, although {list(self._providers)} were given"
            )
        return opened

    def _reopen(self) -> None:
        """Open the bundle in another process.

        Raises:
            BundleError: The bundle is missing, or is not the one that was opened first.
        """
        opened = self._open_bundle(self._path)
        is_same_model = opened.model_sha256 == self.model_sha256
        if not is_same_model or opened.labels != self._original_labels:
            raise BundleError(
                f"{self._path} has changed since the classifier was created; "
                "create it again to use the new bundle"
            )
        self._session = opened.session
        self._process = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        del state["_session"]  # not picklable
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reopen()

    def __copy__(self) -> Self:
        clone = type(self).__new__(type(self))
        clone.__dict__.update(self.__dict__)
        return clone

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        memo[id(self._session)] = self._session
        clone = type(self).__new__(type(self))
        memo[id(self)] = clone
        clone.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return clone

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

        Arguments and errors are those of `predict`. Each image is decoded and resized before the
        next one is taken, so a reader may reuse its buffer. Each batch takes only its own images
        from the iterable; with `batch_size=1` each prediction comes before the next image is taken.
        """
        top_k = check_count("top_k", top_k)
        if on_error not in ("raise", "return"):
            raise ValueError(f"on_error must be 'raise' or 'return', got {on_error!r}")
        _check_color(color)

        _check_iterable(images)
        return self._predict_batches(images, top_k, color, on_error)

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
            boxes: [M, 4]: left, top, right, bottom in pixels; see `crop_boxes`. Boxes are clipped
                to the frame.
            margin: Added on each side, as a share of the width and height of the box.
            top_k: Number of classes in each prediction.
            color: Channel order of the frame.
            on_error: `raise` the error of an invalid box, or `return` it in the position of the
                box.

        Raises:
            ImageError: The frame has a wrong shape or dtype, or a box is empty, outside the frame,
                or normalized.
            ValueError: The boxes are not numbers [M, 4].
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
        _check_iterable(images)
        outputs = []
        for batch in self._load_batches(images, color, "raise"):
            outputs.append(self._run(batch.pixels))

        if not outputs:
            return np.empty((0, self.labels.num_classes), np.float32)
        return np.concatenate(outputs)

    def _predict_batches(
        self, images: Images, top_k: int, color: Color, on_error: OnError
    ) -> Iterator[Prediction | ImageError]:
        for batch in self._load_batches(images, color, on_error):
            predictions: list[Prediction] = []
            if batch.pixels:
                logits = self._run(batch.pixels)
                predictions = interpret_logits(logits, self.labels, top_k)

            remaining = iter(predictions)
            for error in batch.errors:
                yield next(remaining) if error is None else error

    def _load_batches(self, images: Images, color: Color, on_error: OnError) -> Iterator[_Batch]:
        batch = _Batch()
        for index, image in enumerate(images):
            try:
                batch.pixels.append(self._load_pixels(image, index, color))
            except ImageError as error:
                if on_error == "raise":
                    raise
                batch.errors.append(error)
            else:
                batch.errors.append(None)

            if len(batch.errors) == self._batch_size:
                yield batch
                batch = _Batch()
        if batch.errors:
            yield batch

    def _load_pixels(
        self, image: ImageSource | bytearray | memoryview, index: int, color: Color
    ) -> NDArray[np.uint8]:
        if isinstance(image, bytearray | memoryview):
            try:
                image = bytes(image)
            except ValueError as error:  # such as a released memoryview
                raise ImageError(f"image {index} (counted from 0): {error}") from error
        if color == "BGR" and isinstance(image, np.ndarray) and image.ndim == 3:
            image = image[..., ::-1]
        try:
            return self.labels.preprocessing.load_pixels(image)
        except ImageError as error:
            if isinstance(image, str | PathLike):  # the message names the file
                raise
            raise ImageError(f"image {index} (counted from 0): {error}") from error

    def _run(self, pixels: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        if self._process != os.getpid():
            self._reopen()  # the threads of a session do not survive a fork
        # For a single image, adding an axis is faster than stacking.
        batch = np.stack(pixels) if len(pixels) > 1 else pixels[0][None]
        images = self.labels.preprocessing.normalize(batch)
        logits: NDArray[np.float32]
        try:
            (logits,) = self._session.run(["logits"], {"images": images})
        except Exception as error:  # onnxruntime's exceptions have no public base class
            raise BundleError(
                f"{self._path}: onnxruntime cannot run this model on {len(images)} images ({error})"
            ) from error
        return logits


def _check_color(color: str) -> None:
    if color not in ("RGB", "BGR"):
        raise ValueError(f"color must be 'RGB' or 'BGR', got {color!r}")


def _check_iterable(images: object) -> None:
    if _is_single_image(images) or not isinstance(images, Iterable):
        raise TypeError(
            f"expected an iterable of images, got {type(images).__name__}; "
            "for a single image, pass a list: predict([image])"
        )


def _is_single_image(images: object) -> bool:
    """Return whether this is a path, file bytes, a stream, a Pillow image, or an array of one."""
    if isinstance(images, str | bytes | bytearray | memoryview | PathLike | Image.Image):
        return True
    if hasattr(images, "read"):
        return True
    if isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.ndim == 1:
        return True

    dimensions = getattr(images, "ndim", 1)
    return dimensions in (0, 2, 3)
