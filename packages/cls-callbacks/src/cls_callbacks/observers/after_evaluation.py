"""When there is something to say of an evaluation."""

from abc import ABC, abstractmethod

from lightning.pytorch import Callback, LightningModule, Trainer

from cls_callbacks.datamodule_access import get_datamodule
from cls_data import ClassificationDataModule, EvaluationOutputs, HasEvaluationOutputs


class AfterEvaluation(Callback, ABC):
    """Calls `report` after `validate` and `test`, with the outputs that the module gathered.

    Nothing is reported during `fit`: what is shown is of the weights that were evaluated for good.
    """

    @abstractmethod
    def report(
        self, trainer: Trainer, data: ClassificationDataModule, outputs: EvaluationOutputs
    ) -> None:
        """Say what came of an evaluation; called in one process alone."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report a `validate`."""
        if trainer.state.fn == "validate":
            self._report(trainer, pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report a `test`."""
        self._report(trainer, pl_module)

    def _report(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = get_datamodule(trainer)
        if (
            trainer.is_global_zero
            and isinstance(pl_module, HasEvaluationOutputs)
            and pl_module.outputs is not None
        ):
            self.report(trainer, data, pl_module.outputs)
