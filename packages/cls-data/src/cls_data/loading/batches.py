"""Batch types."""

from typing import NamedTuple, NotRequired, TypedDict

from torch import Tensor


class BatchShare(NamedTuple):
    """Which samples of a batch that several devices share are in this process.

    Augmentation draws for the whole batch, so a sample gets the same parameters on any number of
    devices.

    Attributes:
        seed: Seed of the whole batch; the same on all devices.
        num_samples: Samples of the whole batch.
        rank: This process has the samples `rank`, `rank + world_size`, and so on.
        world_size: Number of processes.
    """

    seed: int
    num_samples: int
    rank: int
    world_size: int

    @property
    def rows(self) -> slice:
        """The samples of this process among those of the whole batch."""
        return slice(self.rank, None, self.world_size)


class BatchSeed(NamedTuple):
    """What the random numbers of one batch depend on, among batches that are augmented together.

    Attributes:
        num_samples: Samples of the batch that are in this process.
        seed: Its seed.
        share: Set if several devices share the batch.
    """

    num_samples: int
    seed: int
    share: BatchShare | None = None


class StoredBatch(TypedDict):
    """Rows of an image store. Only training batches have a seed; they are augmented on the device.

    `share` is set if several devices share the batch. The seed then differs from device to device.

    Shapes: images uint8 [B, 3, H, W], labels int64 [B], index int64 [B] (rows of the split).
    """

    images: Tensor
    labels: Tensor
    index: Tensor
    seed: NotRequired[int]
    share: NotRequired[BatchShare]


class ClassificationBatch(TypedDict):
    """Model input.

    Shapes: images float32 [B, 3, H, W] normalized, labels int64 [B], index int64 [B] (rows of the
    split), targets float32 [B, C] whose rows sum to 1. Mixed batches have targets, which replace
    the labels in the loss. `share` is set if several devices share the batch.
    """

    images: Tensor
    labels: Tensor
    index: NotRequired[Tensor]
    targets: NotRequired[Tensor]
    share: NotRequired[BatchShare]
