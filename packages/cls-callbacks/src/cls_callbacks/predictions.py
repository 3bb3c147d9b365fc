"""Each evaluation's answers, image by image, in a file."""

from pathlib import Path

from lightning.pytorch import Trainer

from cls_callbacks.after_evaluation import AfterEvaluation
from cls_data import ClassificationDataModule, EvaluationOutputs, Predictions


class PredictionsWriter(AfterEvaluation):
    """Writes predictions/{valid,test}.npz after `validate` and `test`, from the outputs that the module gathered."""

    def report(self, trainer: Trainer, data: ClassificationDataModule, outputs: EvaluationOutputs) -> None:
        """Write."""
        ids = [record.id for record in data.records(outputs.split)]
        folder = Path(trainer.default_root_dir) / "predictions"
        Predictions.of(outputs, ids, data.classes).save(folder / f"{outputs.split}.npz")
