"""The LightningModule: one step, one pattern for metrics, logits gathered once.

Shapes: B images in a batch, N in a split, C classes.
"""

import math
import random
from typing import Any, Protocol, Self

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from cls_data import ClassificationBatch, ClassificationDataModule, EvaluationOutputs
from cls_models.finetuning.distillation import Distillation
from cls_models.finetuning.feature_cache import FeatureCache
from cls_models.finetuning.transfer import Transfer
from cls_models.metrics import CLASS_ACCURACY, classification_metrics, restore_state, state_of
from cls_models.nonfinite import FirstNotFinite, NotFiniteLossError, named_images
from cls_models.optim.param_groups import build_optimizer, fused_allowed
from cls_models.optim.schedules import Plateau


class OptimizerFactory(Protocol):
    """Makes an optimizer, everything but the parameters being settled already."""

    def __call__(self, params: list[dict[str, Any]], /) -> Optimizer:
        """Return an optimizer of these parameter groups."""
        ...


class SchedulerFactory(Protocol):
    """Makes a schedule that is stepped after every optimizer step."""

    def __call__(self, optimizer: Optimizer, total_steps: int, /) -> LRScheduler:
        """Return the schedule for a training of `total_steps` optimizer steps."""
        ...


class ClassificationModule(LightningModule):
    """Trains any module that maps images to logits.

    Args:
        backbone: maps float32 [B, 3, H, W] to logits float32 [B, C].
        num_classes: C.
        loss: maps logits [B, C] and labels int64 [B] to a scalar; or targets float32 [B, C], where images are mixed.
        optimizer: makes the optimizer from parameter groups.
        scheduler: makes the learning-rate schedule; None keeps the rate as it is.
        transfer: what of the backbone trains, from which epoch on, and how fast; None trains all of it alike.
        distillation: adds a teacher's answers to the loss.

    Without `index` in a batch, rows are counted as they come. What the network draws in a training step is a function
    of the step and of the seed that torch had when the module was made (`torch.initial_seed`).

    Logged once an epoch: train_loss, train_top1 (on augmented images), and for `valid` and `test`
    {split}_loss (mean negative log-likelihood in nats), _top1, _top5, _macro_f1. Every
    `trainer.log_every_n_steps` steps: train_loss_step, lr (of the first parameter group, whose layers have the full
    rate), and loss_scale where float16 has one.

    Raises:
        NotFiniteLossError: in training, at the next of those steps, or where the epoch ends before it; or in its
            validation, for a loss that is not a number.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        loss: nn.Module,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None = None,
        *,
        transfer: Transfer | None = None,
        distillation: Distillation | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.loss = loss
        self.transfer = transfer
        self.outputs: EvaluationOutputs | None = None
        """Every sample of the latest evaluation; None before the first."""
        self.class_accuracy: Tensor | None = None
        """Accuracy of each class in the latest evaluation: float32 [C] on the CPU; None before the first."""
        self._seed = torch.initial_seed()
        self._optimizer = optimizer
        self._scheduler = scheduler
        self._distillation = distillation
        self._cache_features = transfer is not None and transfer.cache_features
        self._cache: FeatureCache | None = None
        self._plateau: Plateau | None = None
        self._train_loss = MeanMetric(
            nan_strategy="disable"
        )  # the check would make the device wait at every step
        self._train_top1 = MulticlassAccuracy(num_classes, average="micro")
        self._eval_metrics = classification_metrics(num_classes)
        self._first_not_finite = FirstNotFinite()
        self._gathered: list[tuple[Tensor, Tensor, Tensor]] = []
        self._concluded: dict[str, float] = {}
        """What the epoch's training part logged, once its last step is done."""
        self._resumed_with: dict[str, float] = {}
        """The same, of an earlier process, where this one goes on in that epoch's validation."""

    def forward(self, images: Tensor) -> Tensor:
        """Map float32 [B, 3, H, W] to logits [B, C]."""
        logits: Tensor = self.backbone(images)
        return logits

    def train(self, mode: bool = True) -> Self:
        """Set the mode; what is frozen stays in evaluation mode."""
        super().train(mode)
        if mode and self.transfer is not None:
            self.transfer.hold(self.backbone)
        return self

    def on_train_start(self) -> None:
        """Freeze, which must also be done where a run goes on in the middle of an epoch; and fill the cache."""
        self._freeze()
        if self._cache_features:
            self._cache = self._computed_features()

    def on_train_epoch_start(self) -> None:
        """Unfreeze what trains from this epoch on, and forget what an interrupted epoch left behind."""
        self._freeze()
        self._train_loss.reset()
        self._train_top1.reset()
        self._first_not_finite.forget()
        self._concluded, self._resumed_with = {}, {}

    def on_train_batch_start(self, batch: ClassificationBatch, batch_idx: int) -> None:
        """Seed what the network draws in this step, such as dropout: a run that goes on draws the same."""
        step = f"{self._seed} {self.current_epoch} {batch_idx} {self.global_rank}"
        _seed_generators(random.Random(step).getrandbits(63), self.device)

    def training_step(self, batch: ClassificationBatch, batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        logits = (
            self(batch["images"]) if self._cache is None else self._cache.logits(batch["index"])
        )
        loss: Tensor = self.loss(logits, batch.get("targets", batch["labels"]))
        if self._distillation is not None:
            loss = self._distillation(batch["images"], logits, loss)
        if "index" in batch:
            self._first_not_finite.note(loss.detach(), batch["index"])
        self._train_loss.update(
            loss.detach()
        )  # all batches are of one size; a weight would make the device wait
        self._train_top1.update(logits.detach(), batch["labels"])
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # set undeclared
        # Where loggers write, so that they write this step's values; and last, so that every epoch has a rate.
        if (every and (self.global_step + 1) % every == 0) or self.trainer.is_last_batch:
            self._log_step(loss.detach())
        if self.trainer.is_last_batch:
            self._conclude_training_epoch()
        return loss

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
        """Build the optimizer, without decay on norms and biases, and the schedule."""
        optimizer = build_optimizer(
            self._optimizer,
            self.backbone,
            self.transfer,
            others=[self.loss],
            fused=fused_allowed(self.trainer),
        )
        if self._scheduler is None:
            return optimizer
        steps = self.trainer.estimated_stepping_batches
        if steps == float("inf"):
            raise ValueError(
                "a schedule needs an end: set max_epochs or max_steps, or train without a scheduler"
            )
        schedule = self._scheduler(optimizer, int(steps))
        if isinstance(schedule, Plateau):
            # Kept by Lightning, and so saved and restored, but stepped here: Lightning would step it only when the
            # epoch's checkpoint has been written.
            self._plateau = schedule
            return {
                "optimizer": optimizer,
                "lr_scheduler": {"scheduler": schedule, "reduce_on_plateau": False},
            }
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def lr_scheduler_step(self, scheduler: Any, metric: Any | None) -> None:
        """Step a schedule, but for one that waits for a metric."""
        if scheduler is not self._plateau:
            super().lr_scheduler_step(scheduler, metric)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what the epoch's training metrics hold so far."""
        checkpoint["training_metrics"] = {
            "loss": state_of(self._train_loss),
            "top1": state_of(self._train_top1),
            "concluded": self._concluded,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the metrics of an epoch that was not finished; the start of another one forgets them."""
        if kept := checkpoint.get("training_metrics"):
            restore_state(self._train_loss, kept["loss"])
            restore_state(self._train_top1, kept["top1"])
            self._concluded = self._resumed_with = kept["concluded"]

    def _freeze(self) -> None:
        if self.transfer is not None:
            self.transfer.apply(self.backbone, self.current_epoch)

    def _computed_features(self) -> FeatureCache:
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]  # set undeclared
        if not isinstance(data, ClassificationDataModule):
            raise TypeError(
                f"cache_features needs a ClassificationDataModule to read the training split, got {data}"
            )
        batches = data.unaugmented("train", self.device)
        return FeatureCache.compute(self.backbone, batches, len(data.records("train")))

    def _log_step(self, loss: Tensor) -> None:
        self.log_dict({"train_loss_step": loss, **self._step_values()}, batch_size=1)
        self._refuse_what_is_not_finite()

    def _step_values(self) -> dict[str, float]:
        values: dict[str, float] = {"lr": self.trainer.optimizers[0].param_groups[0]["lr"]}
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        if scaler is not None:
            values["loss_scale"] = scaler.get_scale()
        return values

    def _refuse_what_is_not_finite(self) -> None:
        """Ask for the epoch's sum so far, which one such loss spoils; seldom, since the host has to wait for it."""
        total = float(self._train_loss.mean_value)
        if not math.isfinite(total):
            raise self._not_finite("training", total)

    def _not_finite(self, kind: str, loss: float) -> NotFiniteLossError:
        rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        images = named_images(
            self._first_not_finite.rows(), getattr(self.trainer, "datamodule", None)
        )
        return NotFiniteLossError(
            f"the {kind} loss became {loss} in epoch {self.current_epoch + 1}, by step {self.global_step}, at a "
            f"learning rate of {rate:.2g}{images}: lower optimizer.lr, clip gradients "
            "with ++trainer.gradient_clip_val=1.0, or train in float32 with ++trainer.precision=32-true"
        )

    def _conclude_training_epoch(self) -> None:
        """Log within the last step: at the epoch's end, callbacks would come before this module and see nothing."""
        values = {
            "train_loss": self._train_loss.compute(),
            "train_top1": self._train_top1.compute(),
        }
        self.log_dict(values, on_step=False, on_epoch=True, batch_size=1)
        self._refuse_what_is_not_finite()
        self._concluded = {
            **self._step_values(),
            **{name: float(value) for name, value in values.items()},
        }

    def _begin_evaluation(self) -> None:
        self._eval_metrics.reset()
        self._gathered = []

    def _evaluate(self, batch: ClassificationBatch) -> None:
        # In float32 whatever the training's precision is, as the deployed model answers.
        with torch.autocast(self.device.type, enabled=False):
            logits = self(batch["images"])
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
        if self.trainer.state.fn == "fit":
            self.log_dict(self._resumed_with)
        if split == "valid" and self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
            self._after_validation_in_training(loss, values)
        self._begin_evaluation()

    def _after_validation_in_training(self, loss: Tensor, values: dict[str, Tensor]) -> None:
        # Before such weights can be called the best: the first epoch's last step may have spoilt them.
        if loss.isnan():
            raise self._not_finite("validation", float(loss))
        if self._plateau is not None:
            self._plateau.step(
                float({"loss": loss, **values}[self._plateau.monitor.removeprefix("valid_")])
            )


def _seed_generators(seed: int, device: torch.device) -> None:
    """Seed the generators of the CPU and of one device.

    `torch.manual_seed` seeds those of all kinds of device; for the kinds that are not in use it keeps the call, with a
    formatted stack trace, in a list that grows with every step (torch 2.15).
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


def _join(split: str, batches: list[tuple[Tensor, Tensor, Tensor]]) -> EvaluationOutputs:
    logits, labels, index = (torch.cat(parts).cpu() for parts in zip(*batches, strict=True))
    return EvaluationOutputs(split, logits, labels, index)


def _join_ranks(own: EvaluationOutputs, world_size: int) -> EvaluationOutputs:
    """Bring all ranks' samples together, in row order."""
    parts: list[EvaluationOutputs | None] = [None] * world_size
    torch.distributed.all_gather_object(parts, own)
    joined = _join(
        own.split, [(part.logits, part.labels, part.index) for part in parts if part is not None]
    )
    order = joined.index.argsort()
    return EvaluationOutputs(
        own.split, joined.logits[order], joined.labels[order], joined.index[order]
    )
