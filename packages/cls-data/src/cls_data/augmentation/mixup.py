"""Mixup and CutMix: pairs of samples in one image, with labels in the same proportion."""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from cls_data.augmentation.ops import AugmentationSettings, Share, move_to_device
from cls_data.augmentation.random_streams import ParamSampler, Values
from cls_data.loading.batches import BatchSeed


class MixupCutmix(AugmentationSettings):
    """Mixes samples with others of their batch, each pair in its own proportion.

    If several devices share a batch, each mixes its own samples. Which pairs are mixed then depends
    on the number of devices.

    Attributes:
        probability: Probability of mixing a sample.
        cutmix: Probability that a mixed sample gets a rectangle of the other image (CutMix: Yun et
            al., 2019, arXiv:1905.04899) instead of being blended with it (mixup: Zhang et al.,
            2018, arXiv:1710.09412).
        alpha: Parameter of the Beta(alpha, alpha) distribution of the proportion; 1 is uniform,
            smaller values leave most pairs nearly unmixed.
    """

    probability: Share = 0.5
    cutmix: Share = 0.5
    alpha: Annotated[float, Field(gt=0)] = 0.4

    def __call__(
        self, images: Tensor, labels: Tensor, num_classes: int, seed: int
    ) -> tuple[Tensor, Tensor]:
        """Return mixed images, float32 [B, 3, H, W], and soft targets, float32 [B, C].

        Rows of the targets sum to 1: the share of each class in the image. All draws come from the
        stream "mixing" of the seed.
        """
        return self.mix_batches(images, labels, num_classes, [BatchSeed(len(images), seed)])

    def mix_batches(
        self, images: Tensor, labels: Tensor, num_classes: int, batches: Sequence[BatchSeed]
    ) -> tuple[Tensor, Tensor]:
        """Mix several batches, one behind the other in `images`, each within itself."""
        all_partners = []
        all_params = []
        start = 0
        for batch in batches:
            partners, params = self._draw(batch)
            all_partners.append(partners + start)
            all_params.append(params)
            start += batch.num_samples
        partner = move_to_device(np.concatenate(all_partners), images)
        own_share, cut, x, y = move_to_device(np.concatenate(all_params, axis=1), images)

        height, width = images.shape[2:]
        box_area = 1 - own_share
        boxes = box_masks(box_area, x, y, height, width)
        weight = torch.where(cut[:, None, None] > 0, 1 - boxes, own_share[:, None, None])

        others = images.index_select(0, partner)
        mixed = torch.lerp(others, images, weight[:, None])

        targets = functional.one_hot(labels, num_classes).float()
        other_targets = targets.index_select(0, partner)
        label_weight = weight.mean(dim=(1, 2))
        return mixed, torch.lerp(other_targets, targets, label_weight[:, None])

    def _draw(self, batch: BatchSeed) -> tuple[NDArray[np.int64], Values]:
        """Return the partner of each sample, int64 [B], and its parameters, float32 [4, B]."""
        sampler = ParamSampler(batch.num_samples, batch.seed, "mixing")
        partner = sampler.permutation()
        beta = sampler.beta(self.alpha)

        is_mixed = sampler.bernoulli(self.probability)
        share = np.where(is_mixed, beta, np.float32(1))
        is_cut = sampler.bernoulli(self.cutmix)

        center_x = sampler.uniform(0, 1)
        center_y = sampler.uniform(0, 1)
        return partner, np.stack([share, is_cut, center_x, center_y])


def box_masks(area: Tensor, center_x: Tensor, center_y: Tensor, height: int, width: int) -> Tensor:
    """Return float32 [B, H, W], 1 inside a rectangle with the image's aspect ratio.

    Takes its share of the image [B] before the border clips it, and its center [B], 0-1.
    """
    half_side = area.sqrt()[:, None] / 2
    columns = _pixel_distances(width, center_x) < half_side
    rows = _pixel_distances(height, center_y) < half_side

    masks = rows[:, :, None] & columns[:, None, :]
    return masks.float()


def _pixel_distances(length: int, center: Tensor) -> Tensor:
    """Return float32 [B, length]: distances of pixel centers from [B], in units of the length."""
    pixels = torch.arange(length, device=center.device)
    pixel_centers = (pixels + 0.5) / length
    distances = pixel_centers - center[:, None]
    return distances.abs()
