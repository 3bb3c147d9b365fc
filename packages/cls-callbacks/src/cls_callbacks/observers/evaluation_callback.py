"""Base class of callbacks that use the outputs of an evaluation."""

from abc import ABC, abstractmethod

from lightning.pytorch import Callback, LightningModule, Trainer

from cls_callbacks.trainer_access import get_datamodule
from cls_data import ClassificationDataModule, EvaluationOutputs, HasEvaluationOutputs


class EvaluationCallback(Callback, ABC):
    """Call `on_evaluation_end` after `validate` and `test`, but not during `fit`."""

    @abstractmethod
    def on_evaluation_end(
        self, trainer: Trainer, data: ClassificationDataModule, outputs: EvaluationOutputs
    ) -> None:
        """Use the outputs that the module gathered; called in the first process only."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Pass on the outputs of `validate`."""
        if trainer.state.fn == "validate":
            self._pass_outputs(trainer, pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Pass on the outputs of `test`."""
        self._pass_outputs(trainer, pl_module)

    def _pass_outputs(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = get_datamodule(trainer)

        if not trainer.is_global_zero or not isinstance(pl_module, HasEvaluationOutputs):
            return

        if pl_module.outputs is not None:
            self.on_evaluation_end(trainer, data, pl_module.outputs)
