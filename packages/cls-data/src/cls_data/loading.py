"""From plans of batches to batches: what a loader and its workers do, which is one gather."""

import gc
from dataclasses import dataclass
from typing import cast

from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from cls_data.batch import StoredBatch
from cls_data.sampling import BatchPlan
from cls_data.store import PixelRows


@dataclass(frozen=True, slots=True)
class Batches(Dataset[StoredBatch]):
    """What a loader reads: an item is a whole batch, gathered at once. It holds nothing that a worker would copy.

    Attributes:
        rows: stored pixels of a split.
        labels: int64 [N].
    """

    rows: PixelRows
    labels: Tensor

    def __getitem__(self, plan: BatchPlan) -> StoredBatch:
        batch = StoredBatch(
            images=self.rows.gather(plan.index), labels=self.labels.index_select(0, plan.index), index=plan.index
        )
        if plan.seed is not None:
            batch["seed"] = plan.seed
        return batch


def batch_loader(
    batches: Batches,
    sampler: Sampler[BatchPlan],
    *,
    workers: int = 0,
    persistent_workers: bool = False,
    pin_memory: bool = False,
) -> DataLoader[StoredBatch]:
    """Return a loader of the batches that the sampler plans; without workers it gathers in this process."""
    # batch_size=None: an item of the data set is a batch already.
    return DataLoader(
        batches,
        sampler=cast("Sampler[int]", sampler),
        batch_size=None,
        num_workers=workers,
        persistent_workers=persistent_workers and workers > 0,
        pin_memory=pin_memory,
        worker_init_fn=_leave_inherited_objects_alone,
    )


def _leave_inherited_objects_alone(worker: int) -> None:
    """Keep the garbage collector of a forked worker from writing to every object, which would copy their memory."""
    gc.freeze()
