"""Broadcast degradation of small crops: loose boxes, low resolution, noise, and compression."""

from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field
from torch import Tensor

from cls_data.augmentation.filters import downscale_and_back
from cls_data.augmentation.gaussian_noise import gaussian_noise
from cls_data.augmentation.geometry import crop_matrices
from cls_data.augmentation.jpeg import compress
from cls_data.augmentation.ops import (
    AugmentationOp,
    AugmentationStage,
    OpParameters,
    PositiveRange,
    Share,
    ShareRange,
    change_selected,
    check_range,
    move_to_device,
)
from cls_data.augmentation.random_streams import ParamSampler, Values

Quality = Annotated[int, Field(ge=1, le=100)]


class BroadcastDegradation(AugmentationOp):
    """Simulates crops from a broadcast: zoomed boxes, downscaling, noise, and JPEG compression.

    `probability` selects samples; each step then changes its own share of the selected samples.

    Attributes:
        probability: Probability of selecting a sample.
        zoom_probability: Probability of zooming a selected sample, like a loose or tight box.
        zoom: Minimum and maximum factor of the content's size.
        downscale_probability: Probability of downscaling a selected sample and upscaling it again.
        downscale: Minimum and maximum relative side length of the downscaled image.
        noise_probability: Probability of adding noise to a selected sample.
        noise: Minimum and maximum standard deviation, in levels of 0-255.
        jpeg_probability: Probability of compressing a selected sample.
        jpeg_quality: Minimum and maximum quality, 1-100 as in Pillow.
    """

    stage: ClassVar[AugmentationStage] = AugmentationStage.DEGRADATION

    probability: Share = 0.5
    zoom_probability: Share = 0.5
    zoom: PositiveRange = (0.8, 1.2)
    downscale_probability: Share = 0.5
    downscale: ShareRange = (0.4, 0.9)
    noise_probability: Share = 0.5
    noise: PositiveRange = (2.0, 12.0)
    jpeg_probability: Share = 0.5
    jpeg_quality: Annotated[tuple[Quality, Quality], AfterValidator(check_range)] = (30, 80)

    def draw(self, sampler: ParamSampler) -> OpParameters:
        """Draw which steps change each sample, and how much. A zoom of 1 changes nothing."""
        selected = sampler.bernoulli(self.probability)
        zoomed = selected & sampler.bernoulli(self.zoom_probability)

        downscaled = selected & sampler.bernoulli(self.downscale_probability)
        noisy = selected & sampler.bernoulli(self.noise_probability)
        compressed = selected & sampler.bernoulli(self.jpeg_probability)

        zoom = sampler.log_uniform(*self.zoom)
        zoom[~zoomed] = 1
        return {
            "zoom": zoom,
            "downscaled": downscaled,
            "shares": sampler.uniform(*self.downscale),
            "noisy": noisy,
            "deviation": sampler.uniform(*self.noise),
            "noise_seeds": sampler.seeds(),
            "compressed": compressed,
            "quality": sampler.uniform(*self.jpeg_quality),
        }

    def matrices(self, params: OpParameters, aspect: float) -> Values:
        """Return float32 [B, 3, 3] that zoom the content."""
        return zoom_matrices(params["zoom"])

    def apply(self, images: Tensor, params: OpParameters) -> Tensor:
        """Downscale, add noise, and compress float32 [B, 3, H, W] in 0-255, in place."""
        images = change_selected(
            images, params["downscaled"], downscale_and_back, shares=params["shares"]
        )
        images = change_selected(
            images,
            params["noisy"],
            add_noise,
            deviation=params["deviation"],
            seeds=params["noise_seeds"],
        )
        return change_selected(images, params["compressed"], compress, quality=params["quality"])


def zoom_matrices(zoom: Values) -> Values:
    """Return float32 [B, 3, 3] for `resample` that scale the content about the center by [B]."""
    side = 1 / zoom
    center = np.full_like(zoom, 0.5)
    return crop_matrices(side, side, center, center)


def add_noise(images: Tensor, deviation: Values, seeds: NDArray[np.int64]) -> Tensor:
    """Add Gaussian noise with standard deviations [B] in place; levels stay within 0-255.

    Args:
        images: float32 [B, 3, H, W] in 0-255.
        deviation: [B], in levels.
        seeds: [B]. The noise of a sample depends only on its seed.
    """
    noise = gaussian_noise(images[0].numel(), seeds, images)
    scale = move_to_device(deviation, images)
    images.addcmul_(noise.reshape(images.shape), scale[:, None, None, None])
    return images.clamp_(0, 255)
