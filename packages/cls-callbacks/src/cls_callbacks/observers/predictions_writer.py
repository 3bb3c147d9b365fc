"""Write the predictions of each evaluation."""

from lightning.pytorch import Trainer

from cls_callbacks.observers.evaluation_callback import EvaluationCallback
from cls_callbacks.trainer_access import get_run_paths
from cls_data import ClassificationDataModule, EvaluationOutputs, Predictions


class PredictionsWriter(EvaluationCallback):
    """Write predictions/{split}.npz after `validate` and `test`."""

    def on_evaluation_end(
        self, trainer: Trainer, data: ClassificationDataModule, outputs: EvaluationOutputs
    ) -> None:
        """Write the file."""
        split = outputs.split
        records = data.records(split)
        predictions = Predictions.from_outputs(outputs, records, data.classes, data.sizes(split))
        path = get_run_paths(trainer).predictions / f"{split}.npz"
        predictions.save(path)
