"""Mixup and cutmix: pairs of samples in one image, with labels in the same proportion."""

from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from cls_data.augmentation.params import AugmentationOp, ParamSampler, Share, on_device


class MixupCutmix(AugmentationOp):
    """How often and how samples are mixed with others of their batch, each pair by a share of its own.

    Attributes:
        probability: share of the samples that are mixed.
        cutmix: of those, the share that gets a rectangle of the other image (Yun et al., 2019, arXiv:1905.04899); the
            others are blended with it (mixup: Zhang et al., 2018, arXiv:1710.09412).
        alpha: of the Beta(alpha, alpha) distribution that shares are drawn from; 1 draws them evenly, and smaller
            values leave most pairs nearly unmixed.
    """

    probability: Share = 0.5
    cutmix: Share = 0.5
    alpha: Annotated[float, Field(gt=0)] = 0.4

    def __call__(
        self, images: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return mixed images and soft targets.

        Args:
            images: float32 [B, 3, H, W].
            labels: int64 [B].
            num_classes: C.
            generator: of the CPU.

        Returns:
            float32 [B, 3, H, W], and float32 [B, C] whose rows sum to 1: the share of each class in the image.
        """
        draws = ParamSampler(len(images), generator)
        partner = on_device(torch.randperm(len(images), generator=generator).numpy(), images)
        shares = (
            np.random.default_rng(draws.seeds())
            .beta(self.alpha, self.alpha, len(images))
            .astype(np.float32)
        )
        share = np.where(draws.chance(self.probability), shares, np.float32(1))
        cut = draws.chance(self.cutmix).astype(np.float32)
        drawn = on_device(np.stack([share, cut, draws.between(0, 1), draws.between(0, 1)]), images)
        kept, cuts, x, y = drawn
        box = boxes(1 - kept, x, y, *images.shape[2:])
        weight = torch.where(cuts[:, None, None] > 0, 1 - box, kept[:, None, None])
        mixed = torch.lerp(images.index_select(0, partner), images, weight[:, None])
        targets = functional.one_hot(labels, num_classes).float()
        return mixed, torch.lerp(
            targets.index_select(0, partner), targets, weight.mean(dim=(1, 2))[:, None]
        )


def boxes(area: Tensor, centre_x: Tensor, centre_y: Tensor, height: int, width: int) -> Tensor:
    """Return float32 [B, H, W], 1 inside a rectangle of the image's aspect ratio, which the border may cut.

    Args:
        area: [B], share of the image that the rectangle has before it is cut.
        centre_x: [B], 0-1, of the rectangle.
        centre_y: [B], 0-1.
        height: H.
        width: W.
    """
    half = area.sqrt()[:, None] / 2
    x, y = ((torch.arange(length, device=area.device) + 0.5) / length for length in (width, height))
    columns, rows = (x - centre_x[:, None]).abs() < half, (y - centre_y[:, None]).abs() < half
    return (rows[:, :, None] & columns[:, None, :]).float()
