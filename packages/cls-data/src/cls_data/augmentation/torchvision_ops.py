"""Any transform of torchvision, sample by sample: slower than a recipe, and there for RandAugment and its kin."""

import torch
from pydantic import ConfigDict
from torch import Tensor, nn

from cls_data.augmentation.params import AugmentationOp, ParamSampler
from cls_data.augmentation.pipelines import Augmentation


class TorchvisionOps(AugmentationOp, Augmentation):
    """Applies a transform to every sample by itself.

    torchvision's transforms draw from PyTorch's global generator, and one set of parameters for a whole batch. Here
    each call is one sample, and the global generator is put back afterwards as it was.

    Attributes:
        transform: of `torchvision.transforms.v2`, from uint8 [3, H, W] to the same; TrivialAugmentWide (Müller and
            Hutter, 2021, arXiv:2103.10158) or RandAugment (Cubuk et al., 2020, arXiv:1909.13719), for two.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    transform: nn.Module

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return float32 [B, 3, H, W] in 0-255 for uint8 [B, 3, H, W]; all draws come from the CPU generator."""
        before = torch.get_rng_state()
        try:
            torch.default_generator.manual_seed(int(ParamSampler(1, generator).seeds()[0]))
            return torch.stack([self.transform(image) for image in images]).float()
        finally:
            torch.set_rng_state(before)
