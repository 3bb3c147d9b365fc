"""Batches after which a checkpoint can be resumed exactly."""

from lightning.pytorch import Trainer


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
