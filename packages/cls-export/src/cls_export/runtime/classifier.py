"""The torch-free classifier that a consumer calls."""

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from os import PathLike
from typing import Literal, cast, overload

import numpy as np
import onnxruntime as ort
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from cls_export.contract.errors import BundleError, ImageError
from cls_export.contract.preprocessing import ImageSource
from cls_export.runtime.boxes import cut
from cls_export.runtime.bundle import Bundle
from cls_export.runtime.predictions import Prediction, interpret
from cls_export.runtime.tracks import TrackPrediction, aggregate

Color = Literal["RGB", "BGR"]
"""The order of an array's channels. OpenCV's frames are BGR."""

Answer = Prediction | ImageError

_Batch = list[tuple[int, ImageSource]]
"""Images with their places in the call."""

_KNOWS_A_SHORT_WAIT = (1, 26)
_AWAKE_MICROSECONDS = 1


class Classifier:
    """Answers for images, from the bundle alone: no class name, size or constant has to be repeated in code.

    It may be shared between threads.

    Args:
        bundle: the exported folder, or a lone model.onnx.
        providers: onnxruntime execution providers, by preference; each must really be available.
        allow_cpu: whether the CPU may stand in for providers that are not; `providers` says which are in use.
        threads: threads within one operator; None is one a physical core that this process may run on. They wait
            awake for a moment, and then sleep, so that others may have the cores; sessions that share a machine still
            want few.
        batch_size: images that go through the graph at once.
        low_memory: open the session with the weights as they are in the file, not in copies ordered for the CPU's
            vectors: most of its peak is gone, for 7 % more time at 64 px and a third more at 224 (a ResNet-18).

    Raises:
        BundleError: the bundle is incomplete, damaged or contradicts itself, or a provider is not available.
    """

    def __init__(
        self,
        bundle: str | os.PathLike[str],
        *,
        providers: Sequence[str] = ("CPUExecutionProvider",),
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
        options = ort.SessionOptions()
        options.log_severity_level = (
            3  # errors alone; a warning about the machine is nothing the caller can act on
        )
        _let_threads_sleep(options)
        options.intra_op_num_threads = threads or _cores_left_by_the_system()
        if low_memory:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        self._session, self.labels = Bundle.locate(bundle).open(
            _available(providers, allow_cpu), options, fall_back=allow_cpu
        )
        if not allow_cpu and self._session.get_providers()[0] != providers[0]:
            raise BundleError(
                f"asked for {list(providers)}, onnxruntime fell back to {self._session.get_providers()}"
            )
        self._batch_size = batch_size

    @property
    def providers(self) -> list[str]:
        """The execution providers in use, by preference."""
        return list(self._session.get_providers())

    @overload
    def predict(
        self,
        images: Iterable[ImageSource],
        top_k: int = ...,
        *,
        color: Color = ...,
        bad: Literal["raise"] = ...,
    ) -> list[Prediction]: ...

    @overload
    def predict(
        self,
        images: Iterable[ImageSource],
        top_k: int = ...,
        *,
        color: Color = ...,
        bad: Literal["return"],
    ) -> list[Answer]: ...

    def predict(
        self,
        images: Iterable[ImageSource],
        top_k: int = 5,
        *,
        color: Color = "RGB",
        bad: Literal["raise", "return"] = "raise",
    ) -> list[Prediction] | list[Answer]:
        """Classify any number of images; the answers keep their order.

        Args:
            images: paths, file bytes, Pillow images and uint8 arrays [height, width, 3], in any mixture.
            top_k: classes to name in each answer.
            color: order of the channels of arrays.
            bad: what an image that cannot be read does: raise its error, or return it in the image's place, so that it
                costs no other its answer.

        Raises:
            ImageError: one of them cannot be decoded, or is an array of a wrong shape or dtype.
        """
        # The overloads say which kind of answers there can be.
        return cast("list[Prediction]", list(self.stream(images, top_k, color=color, bad=bad)))

    @overload
    def stream(
        self,
        images: Iterable[ImageSource],
        top_k: int = ...,
        *,
        color: Color = ...,
        bad: Literal["raise"] = ...,
    ) -> Iterator[Prediction]: ...

    @overload
    def stream(
        self,
        images: Iterable[ImageSource],
        top_k: int = ...,
        *,
        color: Color = ...,
        bad: Literal["return"],
    ) -> Iterator[Answer]: ...

    @overload
    def stream(
        self,
        images: Iterable[ImageSource],
        top_k: int = ...,
        *,
        color: Color = ...,
        bad: Literal["raise", "return"],
    ) -> Iterator[Answer]: ...

    def stream(
        self,
        images: Iterable[ImageSource],
        top_k: int = 5,
        *,
        color: Color = "RGB",
        bad: Literal["raise", "return"] = "raise",
    ) -> Iterator[Prediction] | Iterator[Answer]:
        """Classify images as they come, a batch at a time, in order, in the memory of one batch.

        No more images are taken than the next batch needs, so that a video is read no faster than answers are. With
        `batch_size=1` each answer comes before the next image is asked for.
        """
        if top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {top_k}")
        if bad not in ("raise", "return"):
            raise ValueError(f"bad must be 'raise' or 'return', got {bad!r}")
        _check_color(color)
        return self._stream(_batches(images, self._batch_size), top_k, color, bad == "raise")

    @overload
    def predict_boxes(
        self,
        frame: NDArray[np.uint8],
        boxes: ArrayLike,
        *,
        margin: float = ...,
        top_k: int = ...,
        color: Color = ...,
        bad: Literal["raise"] = ...,
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
        bad: Literal["return"],
    ) -> list[Answer]: ...

    def predict_boxes(
        self,
        frame: NDArray[np.uint8],
        boxes: ArrayLike,
        *,
        margin: float = 0.0,
        top_k: int = 5,
        color: Color = "RGB",
        bad: Literal["raise", "return"] = "raise",
    ) -> list[Prediction] | list[Answer]:
        """Classify what boxes show of one frame; no box, no answer.

        Args:
            frame: uint8 [height, width, 3].
            boxes: [M, 4]: left, top, right and bottom in pixels. What lies outside the frame is cut off.
            margin: added on each side, as a share of a box's width and height.
            top_k: classes to name in each answer.
            color: order of the frame's channels.
            bad: what a box does that is empty or wholly outside: raise its error, or return it in the box's place.

        Raises:
            ImageError: the frame is no such array; or, by `bad`, a box has nothing of it.
            ValueError: boxes are not [M, 4].
        """
        crops = cut(frame, boxes, margin)
        if bad == "raise":
            for crop in crops:
                if isinstance(crop, ImageError):
                    raise crop
        whole = [crop for crop in crops if not isinstance(crop, ImageError)]
        answers = self.stream(whole, top_k, color=color, bad=bad)
        found = [crop if isinstance(crop, ImageError) else next(answers) for crop in crops]
        return cast("list[Prediction]", found)  # as the overloads say

    def aggregate(
        self, predictions: Sequence[Prediction], *, top_k: int = 5, independent: float = 1.0
    ) -> TrackPrediction:
        """Join the answers for a track's frames into one; see `cls_export.runtime.tracks.aggregate`."""
        return aggregate(predictions, self.labels, top_k=top_k, independent=independent)

    def logits(self, images: Iterable[ImageSource], *, color: Color = "RGB") -> NDArray[np.float32]:
        """Return the graph's own output for any number of images: float32 [N, C].

        Raises:
            ImageError: as `predict`.
        """
        _check_color(color)
        rows = [
            self._run([self._pixels(image, number, color) for number, image in batch])
            for batch in _batches(images, self._batch_size)
        ]
        return np.concatenate(rows) if rows else np.empty((0, self.labels.num_classes), np.float32)

    def _stream(
        self, batches: Iterator[_Batch], top_k: int, color: Color, raises: bool
    ) -> Iterator[Answer]:
        for batch in batches:
            read = [self._read(image, number, color, raises) for number, image in batch]
            pixels = [each for each in read if not isinstance(each, ImageError)]
            answers = iter(interpret(self._run(pixels), self.labels, top_k) if pixels else [])
            for each in read:
                yield each if isinstance(each, ImageError) else next(answers)

    def _read(
        self, image: ImageSource, number: int, color: Color, raises: bool
    ) -> NDArray[np.uint8] | ImageError:
        try:
            return self._pixels(image, number, color)
        except ImageError as error:
            if raises:
                raise
            return error

    def _pixels(self, image: ImageSource, number: int, color: Color) -> NDArray[np.uint8]:
        if color == "BGR" and isinstance(image, np.ndarray) and image.ndim == 3:
            image = image[..., ::-1]
        try:
            return self.labels.preprocessing.pixels(image)
        except ImageError as error:
            if isinstance(image, str | PathLike):  # has a name of its own
                raise
            raise ImageError(f"image {number} (counted from 0): {error}") from error

    def _run(self, pixels: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        images = self.labels.preprocessing.normalize(
            np.stack(pixels) if len(pixels) > 1 else pixels[0][None]
        )
        output: NDArray[np.float32] = self._session.run(["logits"], {"images": images})[0]
        return output


def _let_threads_sleep(options: ort.SessionOptions) -> None:
    """Let threads that wait for each other give up their cores soon.

    While they wait awake, as onnxruntime has it, they take the core from whoever has work, be it another process or
    another thread of this session that the system has put aside for them. Without waiting awake at all they are woken
    anew for each operator, which costs on an idle machine. See `benchmarks/export.py threads`.
    """
    if tuple(int(part) for part in ort.__version__.split(".")[:2]) >= _KNOWS_A_SHORT_WAIT:
        options.add_session_config_entry(
            "session.intra_op.spin_duration_us", str(_AWAKE_MICROSECONDS)
        )
    else:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")


def _cores_left_by_the_system() -> int:
    """Return how many cores a container or `taskset` leaves this process; 0, onnxruntime's own choice, for all."""
    if not hasattr(os, "sched_getaffinity"):  # macOS, Windows
        return 0
    allowed = len(os.sched_getaffinity(0))
    return allowed if allowed < (os.cpu_count() or allowed) else 0


def _available(providers: Sequence[str], allow_cpu: bool) -> list[str]:
    """Return those providers that this onnxruntime has."""
    known = ort.get_available_providers()
    for name in providers:
        if not isinstance(name, str):
            raise ValueError(f"providers are names, such as {known[0]!r}; got {name!r}")
    missing = [name for name in providers if name not in known]
    if missing and not allow_cpu:
        raise BundleError(
            f"execution providers {missing} are not available; this onnxruntime has {known}. Install the onnxruntime "
            "build that has them, or pass allow_cpu=True"
        )
    return [name for name in providers if name in known] or ["CPUExecutionProvider"]


def _check_color(color: str) -> None:
    if color not in ("RGB", "BGR"):
        raise ValueError(f"color must be 'RGB' or 'BGR', got {color!r}")


def _batches(images: Iterable[ImageSource], size: int) -> Iterator[_Batch]:
    if not isinstance(images, list | tuple) and (
        _is_one(images) or not isinstance(images, Iterable)
    ):
        raise TypeError(
            f"takes any number of images; for one, pass a list: predict([image]) (got {type(images)})"
        )
    return _split(enumerate(images), size)


def _is_one(images: object) -> bool:
    """Say whether this is one image, and no series of them: an array of two axes or three, a file's name or bytes."""
    one = isinstance(images, str | bytes | bytearray | memoryview | PathLike | Image.Image)
    return one or getattr(images, "ndim", 1) in (0, 2, 3)


def _split(images: Iterator[tuple[int, ImageSource]], size: int) -> Iterator[_Batch]:
    while batch := list(islice(images, size)):
        yield batch
