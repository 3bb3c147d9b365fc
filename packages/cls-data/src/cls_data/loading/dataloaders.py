"""Data loaders whose items are whole batches, each gathered from the image store at once."""

import gc
import signal
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from cls_data.errors import LoaderWorkerError
from cls_data.images.store import RowSource
from cls_data.loading.batches import ClassificationBatch, StoredBatch
from cls_data.loading.prefetch import DevicePrefetcher
from cls_data.loading.samplers import BatchPlan, EpochSampler

_SECONDS_UNTIL_EXIT = 10
"""How long a worker survives SIGTERM, so that the parent can save; then SIGALRM ends it."""

_GROUP_SIGNALS = frozenset(
    {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1} if hasattr(signal, "pthread_sigmask") else ()
)
"""Signals that often go to a whole process group. Empty on Windows."""


@dataclass(frozen=True, slots=True)
class BatchDataset(Dataset[StoredBatch]):
    """Dataset of batches, indexed by their plan. Small to pickle, since workers receive a copy.

    `pinned` gathers images into page-locked memory, for a CUDA device.
    """

    rows: RowSource
    labels: Tensor
    pinned: bool = False

    def __getitem__(self, plan: BatchPlan) -> StoredBatch:
        batch = self.gather(plan.index)
        if plan.seed is not None:
            batch["seed"] = plan.seed
        if plan.share is not None:
            batch["share"] = plan.share
        return batch

    def gather(self, index: Tensor) -> StoredBatch:
        """Return some rows, int64 [B], as a batch without a seed."""
        return StoredBatch(
            images=self.rows.gather(index, pinned=self.pinned),
            labels=self.labels.index_select(0, index),
            index=index,
        )


class BatchDataLoader(DataLoader[StoredBatch]):
    """Data loader that starts its workers at the first batch, not when the iterator is created.

    Lightning creates the first iterator before it sets the sampler's epoch (lightning 2.6.6).
    Workers started then would prefetch batches of epoch 0 in a resumed run.
    """

    _iterator_with_workers: "weakref.ref[_MultiProcessingDataLoaderIter] | None" = None

    def __iter__(self) -> Iterator[StoredBatch]:  # type: ignore[override]
        return self._iterate()

    def end_workers(self) -> None:
        """End the worker processes, if there are any.

        Without this call, workers that wait for work survive an error in training, because its
        traceback refers to the iterator. Python ends them when it exits, with a SIGTERM that
        `_isolate_worker` delays.
        """
        if self._iterator_with_workers is not None:
            iterator = self._iterator_with_workers()
            if iterator is not None:
                iterator._shutdown_workers()

    def _iterate(self) -> Iterator[StoredBatch]:
        try:
            with _signals_blocked_in_new_workers():
                iterator = super().__iter__()
            if isinstance(iterator, _MultiProcessingDataLoaderIter):
                self._iterator_with_workers = weakref.ref(iterator)
            yield from iterator
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
    _prefetch: Callable[[Iterable[BatchPlan]], DevicePrefetcher] | None = None

    def enable_prefetch(self, prefetch: Callable[[Iterable[BatchPlan]], DevicePrefetcher]) -> None:
        """Yield model input on a device, which a thread prepares ahead from the batches' plans."""
        self._prefetch = prefetch

    def __iter__(self) -> Iterator[StoredBatch | ClassificationBatch]:  # type: ignore[override]
        # Set here, not at the first batch: a run resumed during validation requests no batch.
        self.batches_yielded = self._start
        self._start = 0
        return self._iterate_from(self.batches_yielded)

    def _iterate_from(self, start: int) -> Iterator[StoredBatch | ClassificationBatch]:
        self.sampler.start = start
        batches: Iterator[StoredBatch | ClassificationBatch] = self._iterate()
        if self._prefetch is not None:
            batches = iter(self._prefetch(self.sampler))

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


@contextmanager
def _signals_blocked_in_new_workers() -> Iterator[None]:
    """Keep signals from workers that start in this block, until `_isolate_worker` has run."""
    if not _GROUP_SIGNALS:
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _GROUP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _isolate_worker(worker: int) -> None:
    """Keep a forked worker from copying its parent's objects and from reacting to its signals.

    The garbage collector writes to every object it visits, which copies the memory page. A signal
    often goes to the whole process group; the death of a worker would stop the parent before it has
    saved.
    """
    gc.freeze()
    if not _GROUP_SIGNALS:
        return
    for number in _GROUP_SIGNALS - {signal.SIGTERM}:
        signal.signal(number, signal.SIG_IGN)
    # Delay SIGTERM instead of ignoring it: the parent uses it to end a hanging worker.
    signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(_SECONDS_UNTIL_EXIT))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _GROUP_SIGNALS)
