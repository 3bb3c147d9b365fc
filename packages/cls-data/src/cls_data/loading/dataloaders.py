"""Data loaders whose items are whole batches, each gathered from the image store at once."""

import gc
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from cls_data.errors import LoaderWorkerError
from cls_data.images.store import RowSource
from cls_data.loading.batches import ClassificationBatch, StoredBatch
from cls_data.loading.prefetch import DevicePrefetcher, PrepareBatch
from cls_data.loading.samplers import BatchPlan, EpochSampler

_SECONDS_UNTIL_EXIT = 10
"""How long a worker survives SIGTERM, so that the parent can save; then SIGALRM ends it."""


@dataclass(frozen=True, slots=True)
class BatchDataset(Dataset[StoredBatch]):
    """Dataset of batches, indexed by their plan. Small to pickle, since workers receive a copy.

    `pinned` gathers images into page-locked memory, for a CUDA device.
    """

    rows: RowSource
    labels: Tensor
    pinned: bool = False

    def __getitem__(self, plan: BatchPlan) -> StoredBatch:
        batch = StoredBatch(
            images=self.rows.gather(plan.index, pinned=self.pinned),
            labels=self.labels.index_select(0, plan.index),
            index=plan.index,
        )
        if plan.seed is not None:
            batch["seed"] = plan.seed
        if plan.share is not None:
            batch["share"] = plan.share
        return batch


class BatchDataLoader(DataLoader[StoredBatch]):
    """Data loader that starts its workers at the first batch, not when the iterator is created.

    Lightning creates the first iterator before it sets the sampler's epoch (lightning 2.6.6).
    Workers started then would prefetch batches of epoch 0 in a resumed run.
    """

    def __iter__(self) -> Iterator[StoredBatch]:  # type: ignore[override]
        return self._iterate()

    def _iterate(self) -> Iterator[StoredBatch]:
        try:
            yield from super().__iter__()
        except RuntimeError as error:
            raise LoaderWorkerError.from_runtime_error(error) or error from None


class TrainingDataLoader(BatchDataLoader):
    """Data loader that can resume in the middle of an epoch.

    Attributes:
        batches_yielded: Batches of this epoch that were yielded, excluding prefetched ones.
    """

    sampler: EpochSampler
    batches_yielded = 0
    _start = 0
    _prefetch: tuple[PrepareBatch, torch.device] | None = None

    def enable_prefetch(self, prepare: PrepareBatch, device: torch.device) -> None:
        """Yield model input on a device, prepared one batch ahead by a thread."""
        self._prefetch = prepare, device

    def __iter__(self) -> Iterator[StoredBatch | ClassificationBatch]:  # type: ignore[override]
        # Set here, not at the first batch: a run resumed during validation requests no batch.
        self.batches_yielded = self._start
        self._start = 0
        return self._iterate_from(self.batches_yielded)

    def _iterate_from(self, start: int) -> Iterator[StoredBatch | ClassificationBatch]:
        self.sampler.start = start
        stored_batches = self._iterate()
        batches: Iterator[StoredBatch | ClassificationBatch] = stored_batches
        if self._prefetch is not None:
            prepare, device = self._prefetch
            prefetcher = DevicePrefetcher(stored_batches, prepare, device)
            batches = iter(prefetcher)

        for batch in batches:
            self.batches_yielded += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return the position in the epoch."""
        return {"batches": self.batches_yielded}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Start the next iterator after the batches that were already yielded."""
        self._start = state_dict["batches"]


def build_dataloader(
    dataset: BatchDataset,
    sampler: Sampler[BatchPlan],
    *,
    num_workers: int = 0,
    persistent_workers: bool = False,
) -> BatchDataLoader:
    """Return a loader of the batches that the sampler plans; it is resumable for training."""
    loader_class = TrainingDataLoader if isinstance(sampler, EpochSampler) else BatchDataLoader
    return loader_class(
        dataset,
        sampler=cast("Sampler[int]", sampler),
        batch_size=None,  # an item of the dataset is a batch
        num_workers=num_workers,
        persistent_workers=persistent_workers and num_workers > 0,
        pin_memory=dataset.pinned,
        worker_init_fn=_isolate_worker,
    )


def _isolate_worker(worker: int) -> None:
    """Keep a forked worker from copying its parent's objects and from reacting to its signals.

    The garbage collector writes to every object it visits, which copies the memory page. A signal
    often goes to the whole process group; the death of a worker would stop the parent before it has
    saved.
    """
    gc.freeze()
    for name in ("SIGINT", "SIGUSR1"):
        if hasattr(signal, name):
            signal_number = getattr(signal, name)
            signal.signal(signal_number, signal.SIG_IGN)

    if hasattr(signal, "SIGALRM"):
        # Delay SIGTERM instead of ignoring it: the parent uses it to end a hanging worker.
        signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(_SECONDS_UNTIL_EXIT))
