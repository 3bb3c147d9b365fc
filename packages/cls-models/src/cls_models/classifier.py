"""The LightningModule: one step, one pattern for metrics, logits gathered once.

Shapes: B images in a batch, N in a split, C classes.
"""

from typing import Any, Protocol

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from cls_data import ClassificationBatch, EvaluationOutputs
from cls_models.metrics import CLASS_ACCURACY, classification_metrics
from cls_models.optimisation import parameter_groups


class OptimizerFactory(Protocol):
    """Makes an optimiser, everything but the parameters being settled already."""

    def __call__(self, params: list[dict[str, Any]], /) -> Optimizer:
        """Return an optimiser of these parameter groups."""
        ...


class SchedulerFactory(Protocol):
    """Makes a schedule that is stepped after every optimiser step."""

    def __call__(self, optimizer: Optimizer, total_steps: int, /) -> LRScheduler:
        """Return the schedule for a training of `total_steps` optimiser steps."""
        ...


class Classifier(LightningModule):
    """Trains any module that maps images to logits.

    Args:
        backbone: maps float32 [B, 3, H, W] to logits float32 [B, C].
        num_classes: C.
        loss: maps logits [B, C] and labels int64 [B] to a scalar; or targets float32 [B, C], where images are mixed.
        optimizer: makes the optimiser from parameter groups.
        scheduler: makes the learning-rate schedule; None keeps the rate as it is.

    Without `index` in a batch, rows are counted as they come.

    Logged once an epoch: train_loss, train_top1 (on augmented images), and for `valid` and `test`
    {split}_loss (mean negative log-likelihood in nats), _top1, _top5, _macro_f1. Every
    `trainer.log_every_n_steps` steps: train_loss_step and lr.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        loss: nn.Module,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.loss = loss
        self.outputs: EvaluationOutputs | None = None
        """Every sample of the latest evaluation; None before the first."""
        self.class_accuracy: Tensor | None = None
        """Accuracy of each class in the latest evaluation: float32 [C] on the CPU; None before the first."""
        self._optimizer = optimizer
        self._scheduler = scheduler
        self._train_loss = MeanMetric(nan_strategy="disable")  # the check would make the device wait at every step
        self._train_top1 = MulticlassAccuracy(num_classes, average="micro")
        self._eval_metrics = classification_metrics(num_classes)
        self._gathered: list[tuple[Tensor, Tensor, Tensor]] = []

    def forward(self, images: Tensor) -> Tensor:
        """Map float32 [B, 3, H, W] to logits [B, C]."""
        logits: Tensor = self.backbone(images)
        return logits

    def training_step(self, batch: ClassificationBatch, batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        logits = self(batch["images"])
        loss: Tensor = self.loss(logits, batch.get("targets", batch["labels"]))
        self._train_loss.update(loss.detach(), weight=len(logits))
        self._train_top1.update(logits.detach(), batch["labels"])
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # set undeclared
        if every and self.global_step % every == 0:
            rate = self.trainer.optimizers[0].param_groups[0]["lr"]
            self.log_dict({"train_loss_step": loss.detach(), "lr": rate}, batch_size=len(logits))
        if self.trainer.is_last_batch:
            self._conclude_training_epoch()
        return loss

    def on_train_epoch_start(self) -> None:
        """Forget what an interrupted epoch left behind."""
        self._train_loss.reset()
        self._train_top1.reset()

    def on_validation_epoch_start(self) -> None:
        """Forget what an interrupted validation left behind."""
        self._begin_evaluation()

    def on_test_epoch_start(self) -> None:
        """Forget what an interrupted test left behind."""
        self._begin_evaluation()

    def validation_step(self, batch: ClassificationBatch, batch_idx: int) -> None:
        """Gather one batch."""
        self._evaluate(batch)

    def test_step(self, batch: ClassificationBatch, batch_idx: int) -> None:
        """Gather one batch."""
        self._evaluate(batch)

    def predict_step(self, batch: ClassificationBatch, batch_idx: int) -> Tensor:
        """Return logits [B, C]."""
        logits: Tensor = self(batch["images"])
        return logits

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics and publish the outputs."""
        self._conclude("valid")

    def on_test_epoch_end(self) -> None:
        """Log the test metrics and publish the outputs."""
        self._conclude("test")

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build the optimiser, without decay on norms and biases, and the per-step schedule."""
        optimizer = self._optimizer(parameter_groups(self))
        if self._scheduler is None:
            return optimizer
        steps = self.trainer.estimated_stepping_batches
        if steps == float("inf"):
            raise ValueError("a schedule needs an end: set max_epochs or max_steps, or train without a scheduler")
        schedule = self._scheduler(optimizer, int(steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _conclude_training_epoch(self) -> None:
        """Log within the last step: at the epoch's end, callbacks would come before this module and see nothing."""
        values = {"train_loss": self._train_loss.compute(), "train_top1": self._train_top1.compute()}
        self.log_dict(values, on_step=False, on_epoch=True, batch_size=1)

    def _begin_evaluation(self) -> None:
        self._eval_metrics.reset()
        self._gathered = []

    def _evaluate(self, batch: ClassificationBatch) -> None:
        logits = self(batch["images"]).float()
        self._eval_metrics.update(logits, batch["labels"])
        seen = sum(len(labels) for _, labels, _ in self._gathered)
        index = batch.get("index", torch.arange(seen, seen + len(logits)))
        self._gathered.append((logits, batch["labels"], index))

    def _conclude(self, split: str) -> None:
        values = self._eval_metrics.compute()
        self.class_accuracy = values.pop(CLASS_ACCURACY).cpu()
        self.outputs = _join(split, self._gathered)
        if self.trainer.world_size > 1:
            self.outputs = _join_ranks(self.outputs, self.trainer.world_size)
        loss = functional.cross_entropy(self.outputs.logits, self.outputs.labels)
        self.log(f"{split}_loss", loss.to(self.device), prog_bar=split == "valid")
        for name, value in values.items():
            self.log(f"{split}_{name}", value, prog_bar=(split, name) == ("valid", "top1"))
        self._begin_evaluation()


def _join(split: str, batches: list[tuple[Tensor, Tensor, Tensor]]) -> EvaluationOutputs:
    logits, labels, index = (torch.cat(parts).cpu() for parts in zip(*batches, strict=True))
    return EvaluationOutputs(split, logits, labels, index)


def _join_ranks(own: EvaluationOutputs, world_size: int) -> EvaluationOutputs:
    """Bring all ranks' samples together, in row order."""
    parts: list[EvaluationOutputs | None] = [None] * world_size
    torch.distributed.all_gather_object(parts, own)
    joined = _join(own.split, [(part.logits, part.labels, part.index) for part in parts if part is not None])
    order = joined.index.argsort()
    return EvaluationOutputs(own.split, joined.logits[order], joined.labels[order], joined.index[order])
