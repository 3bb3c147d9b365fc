"""Batches after which a checkpoint can be resumed exactly, and ends that are not final."""

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Timer


def can_resume_after_batch(trainer: Trainer, batch_idx: int) -> bool:
    """Return whether a checkpoint saved at the end of this training batch resumes exactly.

    It does not while gradients are being accumulated, because a checkpoint does not hold them.
    It does not before a validation or the end of the epoch either, because the resumed run would
    skip those (lightning 2.6.6).
    """
    if trainer.is_last_batch or is_accumulating(trainer, batch_idx):
        return False
    interval = trainer.val_check_batch
    if not isinstance(interval, int):
        return True
    if trainer.check_val_every_n_epoch is None:  # the interval spans epochs
        batches_before = trainer.fit_loop.epoch_loop.total_batch_idx
    else:
        batches_before = batch_idx
    return (batches_before + 1) % interval != 0


def is_accumulating(trainer: Trainer, batch_idx: int) -> bool:
    """Return whether gradients are still being accumulated after this batch.

    If so, no optimizer step follows it.
    """
    if trainer.is_last_batch:
        return False
    return (batch_idx + 1) % trainer.accumulate_grad_batches != 0


def is_out_of_time(trainer: Trainer) -> bool:
    """Return whether `max_time` has ended training; a longer one lets the resumed run go on."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]  # not declared by Lightning
        if isinstance(callback, Timer):
            remaining = callback.time_remaining()
            if remaining is not None and remaining <= 0:
                return True
    return False
