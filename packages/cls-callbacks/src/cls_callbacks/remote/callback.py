"""Push the checkpoints of a run to its remote copy."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from cls_callbacks.remote.mirror import RemoteMirror


class RemotePushCallback(Callback):
    """Push when training starts, and stop it if another machine has taken the run over.

    `BestAndLastCheckpoint.on_saved` pushes each checkpoint.

    Raises:
        LeaseLostError: After a batch, if another machine trains the run now.
    """

    def __init__(self, mirror: RemoteMirror) -> None:
        self._mirror = mirror

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Push the settings, so that the run has a name before its first checkpoint."""
        self._mirror.push(trainer.global_step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop if the lease is lost."""
        self._mirror.lease.raise_if_lost()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Stop if the lease is lost."""
        self._mirror.lease.raise_if_lost()
