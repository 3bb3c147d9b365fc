"""Measure the accuracy of an exported bundle on degraded images."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from cls_data.annotations.reading import Record
from cls_export import Classifier
from cls_report import Clusters, proportion_interval

_NOISE_SEED = 0


@dataclass(frozen=True, slots=True)
class Degradation:
    """A degradation of RGB images.

    Attributes:
        title: Its name in the report.
        unit: Unit of the levels.
        levels: From the mildest to the strongest.
        apply: Maps an RGB image and a level to a degraded RGB image.
    """

    title: str
    unit: str
    levels: tuple[float, ...]
    apply: Callable[[Image.Image, float], Image.Image]


def _compress(image: Image.Image, quality: float) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=int(quality))
    compressed = Image.open(stream)
    return compressed.convert("RGB")


def _reduce_resolution(image: Image.Image, factor: float) -> Image.Image:
    width = max(1, round(image.width / factor))
    height = max(1, round(image.height / factor))
    size = (width, height)

    small = image.resize(size, Image.Resampling.BOX)
    return small.resize(image.size, Image.Resampling.BILINEAR)


def _blur(image: Image.Image, radius: float) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(radius))


def _add_noise(image: Image.Image, deviation: float) -> Image.Image:
    pixels = np.asarray(image)
    generator = np.random.default_rng(_NOISE_SEED)
    noise = generator.normal(0, deviation, pixels.shape)
    noisy = np.clip(pixels + noise, 0, 255)
    return Image.fromarray(noisy.astype(np.uint8))


def _widen_crop(image: Image.Image, margin: float) -> Image.Image:
    """Widen the crop by mirroring its edges, because the surrounding frame is not available."""
    width = round(margin * image.width)
    height = round(margin * image.height)
    padding = ((height, height), (width, width), (0, 0))

    pixels = np.asarray(image)
    widened = np.pad(pixels, padding, mode="symmetric")
    return Image.fromarray(widened)


DEGRADATIONS = (
    Degradation("JPEG compression", "quality", (90, 70, 50, 30, 15, 5), _compress),
    Degradation("Lower resolution", "downscaling factor", (1.5, 2, 3, 4, 6), _reduce_resolution),
    Degradation("Blur", "standard deviation, px", (0.5, 1, 1.5, 2, 3), _blur),
    Degradation("Noise", "standard deviation, of 255", (5, 10, 20, 30, 50), _add_noise),
    Degradation("Looser boxes", "margin, share of the side", (0.1, 0.2, 0.3, 0.5), _widen_crop),
)


def compute_robustness_curves(
    classifier: Classifier,
    records: Sequence[Record],
    degradations: Sequence[Degradation] = DEGRADATIONS,
) -> dict[str, Any]:
    """Return top-1 accuracy by degradation and level, as degradation.json holds it.

    The bundle's own preprocessing decodes the images. They are degraded before resizing.

    Args:
        classifier: The exported bundle.
        records: Rows of one split.
        degradations: The degradations to apply.

    Returns:
        `images` (their number), `untouched` (accuracy without degradation), and `curves`.
    """
    decode = classifier.labels.preprocessing.decode
    images = [decode(record.path.read_bytes()) for record in records]

    truth = np.array([record.label for record in records])
    groups = np.array([record.group or "" for record in records])
    clusters = Clusters.from_groups(groups)

    def measure_top1(degraded: Sequence[Image.Image]) -> dict[str, float | None]:
        predictions = classifier.predict(degraded)
        predicted = np.array([prediction.label for prediction in predictions])
        return proportion_interval(predicted == truth, clusters).model_dump()

    curves = {}
    for degradation in degradations:
        top1 = []
        for level in degradation.levels:
            degraded = [degradation.apply(image, level) for image in images]
            top1.append(measure_top1(degraded))

        curves[degradation.title] = {
            "unit": degradation.unit,
            "levels": list(degradation.levels),
            "top1": top1,
        }

    return {
        "images": len(records),
        "untouched": measure_top1(images),
        "curves": curves,
    }
