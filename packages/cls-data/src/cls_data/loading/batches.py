"""What travels from the store to the model."""

from typing import NotRequired, TypedDict

from torch import Tensor


class StoredBatch(TypedDict):
    """Rows of the store, on their way to the device. A batch that carries a seed is to be augmented.

    Shapes: images uint8 [B, 3, H, W], labels int64 [B], index int64 [B] (rows of the split).
    """

    images: Tensor
    labels: Tensor
    index: Tensor
    seed: NotRequired[int]


class ClassificationBatch(TypedDict):
    """Model input.

    Shapes: images float32 [B, 3, H, W] normalized, labels int64 [B], index int64 [B] (rows of the split), targets
    float32 [B, C] whose rows sum to 1; those stand in for the labels in the loss where images were mixed.
    """

    images: Tensor
    labels: Tensor
    index: NotRequired[Tensor]
    targets: NotRequired[Tensor]
