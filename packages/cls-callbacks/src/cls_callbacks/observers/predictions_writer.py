"""Each evaluation's answers, image by image, in a file."""

from pathlib import Path

from lightning.pytorch import Trainer

from cls_callbacks.observers.after_evaluation import AfterEvaluation
from cls_data import ClassificationDataModule, EvaluationOutputs, Predictions


class PredictionsWriter(AfterEvaluation):
    """Writes predictions/{valid,test}.npz after `validate` and `test`, from the outputs that the module gathered."""

    def report(
        self, trainer: Trainer, data: ClassificationDataModule, outputs: EvaluationOutputs
    ) -> None:
        """Write."""
        split = outputs.split
        predictions = Predictions.of(outputs, data.records(split), data.classes, data.sizes(split))
        predictions.save(Path(trainer.default_root_dir) / "predictions" / f"{split}.npz")
