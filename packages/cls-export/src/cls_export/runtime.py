"""The torch-free classifier that a consumer calls."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from os import PathLike

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from PIL import Image

from cls_export.bundle import Bundle
from cls_export.errors import BundleError
from cls_export.preprocessing import ImageSource


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one image.

    Attributes:
        label: name of the most probable class.
        confidence: its softmax probability, 0-1; not calibrated.
        top_k: the most probable classes with their probabilities, best first.
        logits: float32 [C], as the graph gave them, in index order.
    """

    label: str
    confidence: float
    top_k: tuple[tuple[str, float], ...]
    logits: NDArray[np.float32]


class Classifier:
    """Answers for images, from the bundle alone: no class name, size or constant has to be repeated in code.

    Args:
        bundle: the exported folder, or a lone model.onnx.
        providers: onnxruntime execution providers, by preference; each must really be available.
        threads: threads within one operator; None leaves the choice to onnxruntime. Sessions that share a
            machine want few.
        batch_size: images that go through the graph at once.

    Raises:
        BundleError: the bundle is incomplete, damaged or contradicts itself, or a provider is not available.
    """

    def __init__(
        self,
        bundle: str | os.PathLike[str],
        *,
        providers: Sequence[str] = ("CPUExecutionProvider",),
        threads: int | None = None,
        batch_size: int = 32,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if isinstance(providers, str) or not providers:
            raise ValueError(f"providers must be a list of at least one name, got {providers!r}")
        options = ort.SessionOptions()
        options.log_severity_level = 3  # errors alone; a warning about the machine is nothing the caller can act on
        if threads is not None:
            options.intra_op_num_threads = threads
        if missing := set(providers) - set(ort.get_available_providers()):
            raise BundleError(
                f"execution providers {sorted(missing)} are not available; this onnxruntime has "
                f"{ort.get_available_providers()}. Install the onnxruntime build that has them"
            )
        self._session, self.labels = Bundle.locate(bundle).open(list(providers), options)
        if self._session.get_providers()[0] != providers[0]:
            raise BundleError(f"asked for {list(providers)}, onnxruntime fell back to {self._session.get_providers()}")
        self._batch_size = batch_size

    @property
    def providers(self) -> list[str]:
        """The execution providers in use, by preference."""
        return list(self._session.get_providers())

    def predict(self, images: Iterable[ImageSource], top_k: int = 5) -> list[Prediction]:
        """Classify any number of images; the answers keep their order.

        Raises:
            ImageError: one of them cannot be decoded, or is an array of a wrong shape or dtype.
        """
        return list(self.stream(images, top_k))

    def stream(self, images: Iterable[ImageSource], top_k: int = 5) -> Iterator[Prediction]:
        """Classify images as they come, a batch at a time, in order; memory stays that of one batch."""
        if top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {top_k}")
        return self._stream(images, top_k)

    def _stream(self, images: Iterable[ImageSource], top_k: int) -> Iterator[Prediction]:
        classes = self.labels.classes
        for batch in _batches(images, self._batch_size):
            for logits in self._run(batch):
                probabilities = _softmax(logits)
                order = np.argsort(-probabilities, kind="stable")[:top_k]
                ranked = tuple((classes[index], float(probabilities[index])) for index in order)
                yield Prediction(*ranked[0], top_k=ranked, logits=logits)

    def logits(self, images: Iterable[ImageSource]) -> NDArray[np.float32]:
        """Return the graph's own output for any number of images: float32 [N, C]."""
        rows = [self._run(batch) for batch in _batches(images, self._batch_size)]
        return np.concatenate(rows) if rows else np.empty((0, self.labels.num_classes), np.float32)

    def _run(self, images: Sequence[ImageSource]) -> NDArray[np.float32]:
        preprocessing = self.labels.preprocessing
        pixels = np.stack([preprocessing.pixels(image) for image in images])
        output: NDArray[np.float32] = self._session.run(["logits"], {"images": preprocessing.normalize(pixels)})[0]
        return output


def _batches(images: Iterable[ImageSource], size: int) -> Iterator[list[ImageSource]]:
    if isinstance(images, str | bytes | PathLike | Image.Image | np.ndarray) and getattr(images, "ndim", 3) == 3:
        raise TypeError(f"takes any number of images; for one, pass a list: predict([image]) (got {type(images)})")
    iterator = iter(images)
    while batch := list(islice(iterator, size)):
        yield batch


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    exponentials = np.exp(logits.astype(np.float64) - float(logits.max()))
    probabilities: NDArray[np.float64] = exponentials / exponentials.sum()
    return probabilities
