"""A callback that counts how often a rank asks the first one during the steps of a training."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import distributed


class BroadcastCounter(Callback):
    """Write the number of broadcasts between the first batch and the end of the last one.

    Args:
        folder: Gets a file `broadcasts-RANK` from each rank.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.count = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        broadcast: Any = distributed.broadcast

        def counted_broadcast(*args: Any, **options: Any) -> Any:
            self.count += 1
            return broadcast(*args, **options)

        distributed.broadcast = counted_broadcast

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.is_last_batch:
            file = self.folder / f"broadcasts-{trainer.global_rank}"
            file.write_text(str(self.count))
