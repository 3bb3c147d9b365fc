"""What a broadcast does to a small crop: few pixels, noise, compression, and a detector's box that is too wide."""

from typing import Annotated

import numpy as np
import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from cls_data.augmentation.filters import downscale_and_back
from cls_data.augmentation.geometry import crop_matrices
from cls_data.augmentation.jpeg import compress
from cls_data.augmentation.params import (
    AugmentationOp,
    Parameters,
    ParamSampler,
    PositiveRange,
    Share,
    ShareRange,
    Values,
    ascending,
    change_some,
    on_device,
)

Quality = Annotated[int, Field(ge=1, le=100)]


class Broadcast(AugmentationOp):
    """How often and how strongly a sample is degraded. Each step has a share of those that the group takes.

    Attributes:
        probability: share of the samples that any of this may befall.
        zoom_probability: share of those whose content is zoomed in or out.
        zoom: smallest and largest factor of the content's size.
        downscale_probability: share of those that are shrunk and enlarged again.
        downscale: smallest and largest share of the sides that is left then.
        noise_probability: share of those with noise.
        noise: smallest and largest standard deviation, in levels of 0-255.
        jpeg_probability: share of those that are compressed.
        jpeg_quality: smallest and largest quality, 1-100 as in Pillow.
    """

    probability: Share = 0.5
    zoom_probability: Share = 0.5
    zoom: PositiveRange = (0.8, 1.2)
    downscale_probability: Share = 0.5
    downscale: ShareRange = (0.4, 0.9)
    noise_probability: Share = 0.5
    noise: PositiveRange = (2.0, 12.0)
    jpeg_probability: Share = 0.5
    jpeg_quality: Annotated[tuple[Quality, Quality], AfterValidator(ascending)] = (30, 80)

    def draw(self, draws: ParamSampler) -> Parameters:
        """Draw what befalls each sample. A factor of the zoom is 1 where there is none."""
        taken = draws.chance(self.probability)
        zoomed = taken & draws.chance(self.zoom_probability)
        return {
            "zoom": np.where(zoomed, draws.factor(*self.zoom), np.float32(1)),
            "downscaled": taken & draws.chance(self.downscale_probability),
            "share": draws.between(*self.downscale),
            "noisy": taken & draws.chance(self.noise_probability),
            "deviation": draws.between(*self.noise),
            "seed": draws.seeds(),
            "compressed": taken & draws.chance(self.jpeg_probability),
            "quality": draws.between(*self.jpeg_quality),
        }

    def apply(self, images: Tensor, drawn: Parameters) -> Tensor:
        """Shrink, add noise, compress: float32 [B, 3, H, W] in 0-255, changed in place. The zoom is geometry's."""
        share, deviation, quality = drawn["share"], drawn["deviation"], drawn["quality"]
        seed = int(drawn["seed"][0])
        images = change_some(
            images, drawn["downscaled"], lambda some, rows: downscale_and_back(some, share[rows])
        )
        images = change_some(
            images, drawn["noisy"], lambda some, rows: add_noise(some, deviation[rows], seed)
        )
        return change_some(
            images, drawn["compressed"], lambda some, rows: compress(some, quality[rows])
        )


def zoom_matrices(zoom: Values) -> Values:
    """Return float32 [B, 3, 3] for `resample` that enlarge the content about the middle by factors [B]."""
    middle = np.full_like(zoom, 0.5)
    return crop_matrices(1 / zoom, 1 / zoom, middle, middle)


def add_noise(images: Tensor, deviation: Values, seed: int) -> Tensor:
    """Add Gaussian noise to float [B, 3, H, W], in place; levels stay within 0-255.

    The noise is drawn where the images lie: the same for the same seed on one kind of device, not across kinds.

    Args:
        images: float [B, 3, H, W] in 0-255.
        deviation: [B], standard deviation in levels.
        seed: of the noise.
    """
    generator = torch.Generator(images.device).manual_seed(seed)
    noise = torch.randn(images.shape, generator=generator, device=images.device)
    return images.addcmul_(noise, on_device(deviation, images)[:, None, None, None]).clamp_(0, 255)
