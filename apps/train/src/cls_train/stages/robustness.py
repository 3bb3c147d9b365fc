"""How accuracy falls as images get worse, asked of the exported bundle as a consumer would ask it."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from cls_data.annotations.reading import Record
from cls_export import Classifier
from cls_report.statistics.intervals import Clusters, share

_NOISE_SEED = 0


@dataclass(frozen=True, slots=True)
class Degradation:
    """One way of making an image worse.

    Attributes:
        title: what is done.
        unit: of the levels.
        levels: from the mildest to the strongest.
        apply: makes an RGB image worse.
    """

    title: str
    unit: str
    levels: tuple[float, ...]
    apply: Callable[[Image.Image, float], Image.Image]


def _compress(image: Image.Image, quality: float) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=int(quality))
    return Image.open(stream).convert("RGB")


def _shrink(image: Image.Image, factor: float) -> Image.Image:
    small = (max(1, round(image.width / factor)), max(1, round(image.height / factor)))
    return image.resize(small, Image.Resampling.BOX).resize(image.size, Image.Resampling.BILINEAR)


def _blur(image: Image.Image, radius: float) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(radius))


def _add_noise(image: Image.Image, deviation: float) -> Image.Image:
    noise = np.random.default_rng(_NOISE_SEED).normal(0, deviation, (image.height, image.width, 3))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


def _loosen(image: Image.Image, margin: float) -> Image.Image:
    """Widen the crop. What lay around it is not known, so that its edges are mirrored."""
    width, height = round(margin * image.width), round(margin * image.height)
    sides = ((height, height), (width, width), (0, 0))
    return Image.fromarray(np.pad(np.asarray(image), sides, mode="symmetric"))


DEGRADATIONS = (
    Degradation("JPEG compression", "quality", (90, 70, 50, 30, 15, 5), _compress),
    Degradation("Fewer pixels", "times smaller, and enlarged again", (1.5, 2, 3, 4, 6), _shrink),
    Degradation("Blur", "standard deviation, px", (0.5, 1, 1.5, 2, 3), _blur),
    Degradation("Noise", "standard deviation, of 255", (5, 10, 20, 30, 50), _add_noise),
    Degradation("Looser boxes", "margin, share of the side", (0.1, 0.2, 0.3, 0.5), _loosen),
)


def degradation_curves(
    classifier: Classifier,
    records: Sequence[Record],
    degradations: Sequence[Degradation] = DEGRADATIONS,
) -> dict[str, Any]:
    """Return top-1 by degradation and level, as degradation.json holds it; `untouched` is that of the files themselves.

    Args:
        classifier: the exported bundle.
        records: rows of one split.
        degradations: ways of making an image worse, at the size at which it is stored.
    """
    truth = np.array([record.label for record in records])
    clusters = Clusters.from_groups(np.array([record.group or "" for record in records]))
    images = []
    for record in records:
        with Image.open(record.path) as opened:
            images.append(ImageOps.exif_transpose(opened).convert("RGB"))

    def top1(shown: Sequence[Image.Image]) -> dict[str, float | None]:
        said = np.array([prediction.label for prediction in classifier.predict(shown)])
        return share(said == truth, clusters).model_dump()

    curves = {
        each.title: {
            "unit": each.unit,
            "levels": list(each.levels),
            "top1": [top1([each.apply(image, level) for image in images]) for level in each.levels],
        }
        for each in degradations
    }
    return {"images": len(records), "untouched": top1(images), "curves": curves}
