"""From plans of batches to batches: what a loader and its workers do, which is one gather."""

import gc
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from cls_data.errors import LoaderWorkerError
from cls_data.images.store import PixelRows
from cls_data.loading.batches import ClassificationBatch, StoredBatch
from cls_data.loading.prefetch import DevicePrefetcher, Prepare
from cls_data.loading.samplers import BatchPlan, EpochSampler


@dataclass(frozen=True, slots=True)
class BatchDataset(Dataset[StoredBatch]):
    """What a loader reads: an item is a whole batch, gathered at once. It holds nothing that a worker would copy.

    Attributes:
        rows: stored pixels of a split.
        labels: int64 [N].
        pinned: in page-locked memory, for a CUDA device.
    """

    rows: PixelRows
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
        return batch


_SECONDS_TO_SAVE = 10
"""How long a worker lives on after SIGTERM; SIGALRM ends it, unless the parent has done so by then."""


class BatchLoader(DataLoader[StoredBatch]):
    """A loader whose workers start with the first batch that is asked for, and not when an iterator is made.

    Lightning makes the first iterator before it tells the sampler which epoch comes (lightning 2.6.6). Workers that
    fetched ahead by then would give a resumed run the batches of epoch 0.
    """

    def __iter__(self) -> Iterator[StoredBatch]:  # type: ignore[override]  # an iterator is all that is asked of it
        return self._batches()

    def _batches(self) -> Iterator[StoredBatch]:
        try:
            yield from super().__iter__()
        except RuntimeError as error:
            raise LoaderWorkerError.recognized(error) or error from None


class TrainingLoader(BatchLoader):
    """A loader that can go on in the middle of an epoch: its state is how many batches of the epoch were handed out.

    Attributes:
        handed_out: that number; of what workers or a thread have made ahead, nothing counts.
    """

    sampler: EpochSampler
    handed_out = 0
    _start = 0
    _ahead: tuple[Prepare, torch.device] | None = None

    def prepare_ahead(self, prepare: Prepare, device: torch.device) -> None:
        """Hand out model input on a device, which a thread makes ready a batch ahead."""
        self._ahead = prepare, device

    def __iter__(self) -> Iterator[StoredBatch | ClassificationBatch]:  # type: ignore[override]
        # Taken here and not at the first batch: where a run goes on in an epoch's validation, no batch is asked for.
        self.handed_out, self._start = self._start, 0
        return self._batches_from(self.handed_out)

    def _batches_from(self, start: int) -> Iterator[StoredBatch | ClassificationBatch]:
        self.sampler.start = start
        for batch in (
            self._batches()
            if self._ahead is None
            else DevicePrefetcher(self._batches(), *self._ahead)
        ):
            self.handed_out += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return where the epoch stands."""
        return {"batches": self.handed_out}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Let the next iterator start behind the batches that were handed out."""
        self._start = state_dict["batches"]


def batch_loader(
    batches: BatchDataset,
    sampler: Sampler[BatchPlan],
    *,
    workers: int = 0,
    persistent_workers: bool = False,
) -> BatchLoader:
    """Return a loader of the batches that the sampler plans; without workers it gathers in this process."""
    kind = TrainingLoader if isinstance(sampler, EpochSampler) else BatchLoader
    # batch_size=None: an item of the data set is a batch already.
    return kind(
        batches,
        sampler=cast("Sampler[int]", sampler),
        batch_size=None,
        num_workers=workers,
        persistent_workers=persistent_workers and workers > 0,
        pin_memory=batches.pinned,
        worker_init_fn=_leave_inherited_objects_alone,
    )


def _leave_inherited_objects_alone(worker: int) -> None:
    """Keep a forked worker from what is its parent's: objects, whose memory would be copied, and signals.

    The garbage collector writes to every object that it looks at. A signal often goes to the whole process group; a
    worker that died of it would take the parent along before that has saved.
    """
    gc.freeze()
    for name in ("SIGINT", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "SIGALRM"):
        # Not ignored: by SIGTERM the parent ends a worker that hangs, at the end.
        signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(_SECONDS_TO_SAVE))
