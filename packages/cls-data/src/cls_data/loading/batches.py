"""Batch types."""

from typing import NotRequired, TypedDict

from torch import Tensor


class StoredBatch(TypedDict):
    """Rows of an image store. Only training batches have a seed; they are augmented on the device.

    Shapes: images uint8 [B, 3, H, W], labels int64 [B], index int64 [B] (rows of the split).
    """

    images: Tensor
    labels: Tensor
    index: Tensor
    seed: NotRequired[int]


class ClassificationBatch(TypedDict):
    """Model input.

    Shapes: images float32 [B, 3, H, W] normalized, labels int64 [B], index int64 [B] (rows of the
    split), targets float32 [B, C] whose rows sum to 1. Mixed batches have targets, which replace
    the labels in the loss.
    """

    images: Tensor
    labels: Tensor
    index: NotRequired[Tensor]
    targets: NotRequired[Tensor]
