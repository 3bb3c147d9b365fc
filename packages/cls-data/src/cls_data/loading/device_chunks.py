"""Prepare the batches of a GPU in chunks of up to thousands of images.

Each batch keeps its own random streams, so results do not depend on the size of the chunks.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from lightning.fabric.utilities.apply_func import move_data_to_device

from cls_data.images.store import PixelRows, RowSource
from cls_data.loading.batches import BatchSeed, ClassificationBatch
from cls_data.loading.dataloaders import BatchDataset
from cls_data.loading.device_transform import DeviceTransform
from cls_data.loading.prefetch import Chunk, DevicePrefetcher
from cls_data.loading.samplers import BatchPlan

_MAX_IMAGES = 2048
_MAX_VALUES = 2**25
"""Limits of a chunk: images, and float32 values of its images (134 MB)."""

_RESIDENT_SHARE = 0.02
"""Pixels stay on the device if they take at most this share of its free memory: 1.6 of 80 GB."""


@dataclass(frozen=True, slots=True)
class ChunkPreparation:
    """Gathers and augments chunks of training batches on a device.

    Attributes:
        dataset: The training rows.
        transform: Augments them.
        device: Where batches are prepared.
        get_size: Returns height and width of training images in the current epoch.
        num_classes: C.
    """

    dataset: BatchDataset
    transform: DeviceTransform
    device: torch.device
    get_size: Callable[[], tuple[int, int]]
    num_classes: int

    def prefetch(self, plans: Iterable[BatchPlan]) -> DevicePrefetcher:
        """Return an iterable over the batches of an epoch, prepared ahead by a thread."""
        size = self.get_size()
        images_per_chunk = count_images_per_chunk(*size)
        chunks = group_plans(plans, images_per_chunk)
        return DevicePrefetcher(chunks, lambda chunk: self.prepare(chunk, size), self.device)

    def prepare(self, chunk: Chunk, size: tuple[int, int]) -> list[ClassificationBatch]:
        """Return the batches of a chunk, which share memory, as images of a height and width."""
        index = torch.cat([plan.index for plan in chunk])
        rows = move_data_to_device(self.dataset.gather(index), self.device)
        batches = []
        for plan in chunk:
            assert plan.seed is not None
            batches.append(BatchSeed(len(plan.index), plan.seed, plan.share))
        return self.transform.transform_training_batches(rows, batches, size, self.num_classes)


def group_plans(plans: Iterable[BatchPlan], max_images: int) -> Iterator[Chunk]:
    """Group batches into chunks of at most `max_images` images, or of one larger batch.

    The first chunk is one batch, so that the first step need not wait; later ones double in size.
    """
    chunk: Chunk = []
    limit = 1
    for plan in plans:
        is_full = len(chunk) == limit or (len(chunk) + 1) * len(plan.index) > max_images
        if chunk and is_full:
            yield chunk
            limit *= 2
            chunk = []
        chunk.append(plan)
    if chunk:
        yield chunk


def count_images_per_chunk(height: int, width: int) -> int:
    """Return how many images of this size are prepared together."""
    return min(_MAX_IMAGES, _MAX_VALUES // (3 * height * width))


def keep_on_device(rows: RowSource, device: torch.device) -> RowSource:
    """Return the same rows on a CUDA device, if they are in memory as a whole and fit easily."""
    if device.type != "cuda" or not isinstance(rows, PixelRows):
        return rows
    free_bytes, _ = torch.cuda.mem_get_info(device)
    if rows.pixels.nbytes > _RESIDENT_SHARE * free_bytes:
        return rows
    return PixelRows(rows.pixels.to(device))
