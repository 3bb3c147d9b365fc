"""Each evaluation's answers, image by image, in a file."""

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from cls_callbacks.run_data import data_of
from cls_data import GathersOutputs, Predictions


class PredictionsWriter(Callback):
    """Writes predictions/{valid,test}.npz after `validate` and `test`, from the outputs that the module gathered."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the answers of a `validate`."""
        if trainer.state.fn == "validate":
            self._write(trainer, pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the answers of a `test`."""
        self._write(trainer, pl_module)

    def _write(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = data_of(trainer)
        if trainer.is_global_zero and isinstance(pl_module, GathersOutputs) and pl_module.outputs is not None:
            outputs = pl_module.outputs
            ids = [record.id for record in data.records(outputs.split)]
            folder = Path(trainer.default_root_dir) / "predictions"
            Predictions.of(outputs, ids, data.classes).save(folder / f"{outputs.split}.npz")
