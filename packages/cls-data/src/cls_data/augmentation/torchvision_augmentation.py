"""Per-sample torchvision transforms, such as RandAugment; slower than the batched pipelines."""

import torch
from pydantic import ConfigDict
from torch import Tensor, nn

from cls_data.augmentation.ops import AugmentationSettings
from cls_data.augmentation.pipelines import Augmentation
from cls_data.augmentation.random_streams import ParamSampler
from cls_data.loading.batches import BatchShare


class TorchvisionAugmentation(AugmentationSettings, Augmentation):
    """Applies a torchvision transform to every sample separately.

    torchvision's transforms draw from PyTorch's global generator, once for a whole batch. Here
    every call gets one sample and its own seed, and the state of the global generator is restored
    afterwards.

    Attributes:
        transform: Transform of `torchvision.transforms.v2` from uint8 [3, H, W] to uint8
            [3, H, W], such as TrivialAugmentWide (Müller and Hutter, 2021, arXiv:2103.10158) or
            RandAugment (Cubuk et al., 2020, arXiv:1909.13719).
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    transform: nn.Module

    def __call__(self, images: Tensor, seed: int) -> Tensor:
        """Return float32 [B, 3, H, W] in 0-255 for uint8 [B, 3, H, W]."""
        return self._augment(images, ParamSampler(len(images), seed, "torchvision"))

    def augment_share(self, images: Tensor, seed: int, share: BatchShare) -> Tensor:
        """Augment samples with the seeds that one device would draw for them."""
        return self._augment(images, ParamSampler(len(images), seed, "torchvision", share))

    def _augment(self, images: Tensor, sampler: ParamSampler) -> Tensor:
        state = torch.get_rng_state()
        changed = []
        try:
            for image, seed in zip(images, sampler.seeds(), strict=True):
                torch.default_generator.manual_seed(int(seed))
                changed.append(self.transform(image))
        finally:
            torch.set_rng_state(state)

        return torch.stack(changed).float()
