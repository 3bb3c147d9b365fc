"""The LightningModule that trains and evaluates a classifier.

Shapes: B images in a batch, N images in a split, C classes.
"""

import math
import random
from collections.abc import Callable
from typing import Any, Self

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from cls_data import (
    BatchShare,
    ClassificationBatch,
    ClassificationDataModule,
    EvaluationOutputs,
)
from cls_models.acceleration.step_graph import StepGraph
from cls_models.finetuning.distillation import DistillationLoss
from cls_models.finetuning.feature_cache import FeatureCache
from cls_models.finetuning.transfer import Transfer
from cls_models.losses import get_weight_sum
from cls_models.metrics import CLASS_ACCURACY, build_classification_metrics
from cls_models.nonfinite import NonfiniteBatchTracker, NonfiniteLossError, list_image_paths
from cls_models.optim.param_groups import build_optimizer, is_fused_allowed
from cls_models.optim.schedule_factory import build_schedule
from cls_models.optim.schedules import Plateau
from cls_models.rank_reduction import (
    average_buffers,
    average_module_buffers,
    gather_rows,
    scale_to_joint_mean,
    sum_over_ranks,
)
from cls_models.training_metrics import TrainingMetrics

OptimizerFactory = Callable[[list[dict[str, Any]]], Optimizer]
"""Builds an optimizer from parameter groups."""

SchedulerFactory = Callable[..., LRScheduler]
"""Builds a learning rate schedule from an optimizer; see `schedule_factory.build_schedule`."""


class ClassificationModule(LightningModule):
    """Train and evaluate a network that maps images to logits.

    Args:
        backbone: Maps float32 [B, 3, H, W] to logits float32 [B, C].
        num_classes: C.
        loss: Maps logits [B, C] and labels int64 [B] to a scalar. If images are mixed, it gets
            targets float32 [B, C] instead of labels.
        optimizer: Builds the optimizer from parameter groups.
        scheduler: Builds the learning rate schedule; None keeps the rate constant.
        transfer: Which layers train, from which epoch, and how fast; None trains all layers alike.
        distillation: Adds a teacher's predictions to the loss.

    Rows of batches without `index` are numbered in order. The network's random numbers, such as
    dropout, depend only on epoch, batch number, rank, and `torch.initial_seed()` when the module
    was created.

    Logged once per epoch: train_loss and train_top1 (on augmented images), and for `valid` and
    `test` {split}_loss (mean negative log-likelihood in nats), _top1, _top5, and _macro_f1. Logged
    every `trainer.log_every_n_steps` steps: train_loss_step, lr (of the first parameter group,
    whose layers have the full rate), and with float16 loss_scale.

    Raises:
        NonfiniteLossError: The training loss is infinite or NaN (checked at every logged step and
            at the end of the epoch), or the validation loss during training is NaN.
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
        distillation: DistillationLoss | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.loss = loss
        self.transfer = transfer
        self.outputs: EvaluationOutputs | None = None
        """Outputs of the latest evaluation; None before the first, and on all ranks but the first.
        """
        self.step_graph: StepGraph | None = None
        """Computes the gradients and the update of the current batch, if it is set."""
        self.class_accuracy: Tensor | None = None
        """Accuracy of each class in the latest evaluation, float32 [C] on the CPU; or None."""

        self._seed = torch.initial_seed()
        self._optimizer = optimizer
        self._scheduler = scheduler
        self._distillation = distillation
        self._feature_cache: FeatureCache | None = None
        self._plateau: Plateau | None = None

        self._training_metrics = TrainingMetrics()
        self._eval_metrics = build_classification_metrics(num_classes)
        self._nonfinite_batch = NonfiniteBatchTracker()
        self._eval_batches: list[tuple[Tensor, Tensor, Tensor]] = []
        self._epoch_metrics: dict[str, float] = {}
        """Training metrics of the epoch, set at its last step."""
        self._resumed_epoch_metrics: dict[str, float] = {}
        """The same from a checkpoint, if training resumes in that epoch's validation."""

    def forward(self, images: Tensor) -> Tensor:
        """Map float32 [B, 3, H, W] to logits [B, C]."""
        logits: Tensor = self.backbone(images)
        return logits

    def train(self, mode: bool = True) -> Self:
        """Set the mode; frozen layers stay in evaluation mode."""
        super().train(mode)
        if mode and self.transfer is not None:
            self.transfer.set_frozen_to_eval(self.backbone)
        return self

    def on_train_start(self) -> None:
        """Freeze layers, also when training resumes within an epoch, and fill the feature cache."""
        self._training_metrics.move(self.device)
        self._freeze_layers()
        if self.transfer is not None and self.transfer.cache_features:
            self._feature_cache = self._build_feature_cache()

    def on_train_epoch_start(self) -> None:
        """Unfreeze the layers that train from this epoch, and reset the training metrics."""
        self._freeze_layers()
        self._training_metrics.reset()
        self._nonfinite_batch.reset()
        self._epoch_metrics = {}
        self._resumed_epoch_metrics = {}

    def on_train_batch_start(self, batch: ClassificationBatch, batch_idx: int) -> None:
        """Seed the network's random numbers, so that a resumed run gets the same."""
        step = f"{self._seed} {self.current_epoch} {batch_idx} {self.global_rank}"
        seed = random.Random(step).getrandbits(63)
        _seed_generators(seed, self.device)

    def training_step(self, batch: ClassificationBatch, batch_idx: int) -> Tensor:
        """Return the loss of one batch; with a step graph, compute its gradients too."""
        if self.step_graph is None:
            loss = self.compute_loss(batch)
        else:
            is_first = batch_idx % self.trainer.accumulate_grad_batches == 0
            loss = self.step_graph.compute_gradients(is_first=is_first)

        # Lightning sets this attribute without declaring it.
        interval: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        is_logged = bool(interval) and (self.global_step + 1) % interval == 0

        # Log where loggers write, and at the last step, so that every epoch has a value.
        if is_logged or self.trainer.is_last_batch:
            self._log_step(loss.detach())
        if self.trainer.is_last_batch:
            self._log_training_epoch()
        return loss

    def compute_loss(self, batch: ClassificationBatch) -> Tensor:
        """Return the loss of one batch, and add it to the training metrics."""
        if self._feature_cache is None:
            logits = self(batch["images"])
        else:
            logits = self._feature_cache.logits(batch["index"])

        targets = batch.get("targets", batch["labels"])
        loss: Tensor = self.loss(logits, targets)
        if "share" in batch:
            loss = self._scale_to_whole_batch(loss, targets, batch["share"])
        if self._distillation is not None:
            loss = self._distillation(batch["images"], logits, loss)

        detached_loss = loss.detach()
        if "index" in batch:
            self._nonfinite_batch.update(detached_loss, batch["index"])
        self._training_metrics.update(detached_loss, logits.detach(), batch["labels"])
        return loss

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Compute the gradients, unless the step graph has."""
        if self.step_graph is None:
            super().backward(loss, *args, **kwargs)

    def on_validation_model_zero_grad(self) -> None:
        """Free the gradients, unless a step graph computes them in its own memory."""
        if self.step_graph is None:
            super().on_validation_model_zero_grad()

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradients, unless the update of a step graph does."""
        if self.step_graph is None or not self.step_graph.clips_gradients:
            super().configure_gradient_clipping(
                optimizer, gradient_clip_val, gradient_clip_algorithm
            )

    def on_validation_start(self) -> None:
        """Let all ranks validate the same statistics of batch normalization."""
        average_module_buffers(self)

    def on_validation_epoch_start(self) -> None:
        """Discard the state of an interrupted validation."""
        self._reset_evaluation()

    def on_test_epoch_start(self) -> None:
        """Discard the state of an interrupted test."""
        self._reset_evaluation()

    def validation_step(self, batch: ClassificationBatch, batch_idx: int) -> None:
        """Evaluate one batch."""
        self._evaluate_batch(batch)

    def test_step(self, batch: ClassificationBatch, batch_idx: int) -> None:
        """Evaluate one batch."""
        self._evaluate_batch(batch)

    def predict_step(self, batch: ClassificationBatch, batch_idx: int) -> Tensor:
        """Return logits [B, C]."""
        logits: Tensor = self(batch["images"])
        return logits

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics and set `outputs`."""
        self._finish_evaluation("valid")

    def on_test_epoch_end(self) -> None:
        """Log the test metrics and set `outputs`."""
        self._finish_evaluation("test")

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build the optimizer, without weight decay on norms and biases, and the schedule."""
        optimizer = build_optimizer(
            self._optimizer,
            self.backbone,
            self.transfer,
            extra_modules=[self.loss],
            fused=is_fused_allowed(self.trainer),
        )
        if self._scheduler is None:
            return optimizer
        steps = self.trainer.estimated_stepping_batches
        if steps == float("inf"):
            raise ValueError(
                "a schedule needs a number of steps: set max_epochs or max_steps, or no scheduler"
            )
        schedule, interval = build_schedule(self._scheduler, optimizer, int(steps))
        settings: Any = {"scheduler": schedule, "interval": interval}
        if isinstance(schedule, Plateau):
            # Registered so that Lightning saves and restores it, but stepped in this module:
            # Lightning would step it after the epoch's checkpoint is written.
            self._plateau = schedule
            settings = {"scheduler": schedule, "reduce_on_plateau": False}
        return {"optimizer": optimizer, "lr_scheduler": settings}

    def lr_scheduler_step(self, scheduler: Any, metric: Any | None) -> None:
        """Step a schedule, except one that depends on a metric."""
        if scheduler is not self._plateau:
            super().lr_scheduler_step(scheduler, metric)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the state of the epoch's training metrics, and buffers, over all ranks."""
        buffers = [name for name, _ in self.named_buffers() if name in checkpoint["state_dict"]]
        for key in ("state_dict", "raw_state_dict"):
            if key in checkpoint:
                average_buffers(buffers, checkpoint[key])
        checkpoint["training_metrics"] = {
            **self._training_metrics.get_state(self.trainer.world_size),
            "concluded": self._epoch_metrics,  # version 0.1 checkpoints have this key
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the metrics of an unfinished epoch; the start of another epoch resets them."""
        state = checkpoint.get("training_metrics")
        if state:
            self._training_metrics.restore_state(state, self.global_rank, self.trainer.world_size)
            self._epoch_metrics = state["concluded"]
            self._resumed_epoch_metrics = state["concluded"]

    def _freeze_layers(self) -> None:
        if self.transfer is not None:
            self.transfer.freeze_for_epoch(self.backbone, self.current_epoch)

    def _build_feature_cache(self) -> FeatureCache:
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]  # set undeclared
        if not isinstance(data, ClassificationDataModule):
            raise TypeError(
                "cache_features needs a ClassificationDataModule to read the training split, got "
                f"{data}"
            )
        batches = data.unaugmented("train", self.device)
        return FeatureCache.compute(self.backbone, batches, len(data.records("train")))

    def _log_step(self, loss: Tensor) -> None:
        self.log_dict({"train_loss_step": loss, **self._get_optimizer_values()}, batch_size=1)
        self._check_training_loss()

    def _log_training_epoch(self) -> None:
        # Log at the last step: epoch-end hooks of callbacks run before this module's.
        values = self._training_metrics.compute()
        self.log_dict(values, on_step=False, on_epoch=True, batch_size=1)

        self._check_training_loss()
        self._epoch_metrics = self._get_optimizer_values()
        for name, value in values.items():
            self._epoch_metrics[name] = float(value)

    def _get_learning_rate(self) -> float:
        """Return the rate of the first group, whose layers have the full one."""
        optimizer = self.trainer.optimizers[0]
        rate: float = optimizer.param_groups[0]["lr"]
        return rate

    def _get_optimizer_values(self) -> dict[str, float]:
        values = {"lr": self._get_learning_rate()}
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        if scaler is not None:
            values["loss_scale"] = scaler.get_scale()
        return values

    def _check_training_loss(self) -> None:
        # One non-finite loss makes the sum non-finite. Reading it synchronizes with the device.
        total = self._training_metrics.sum_losses()
        if not math.isfinite(total):
            raise self._nonfinite_error("training", total)

    def _nonfinite_error(self, kind: str, loss: float) -> NonfiniteLossError:
        epoch = self.current_epoch + 1
        rate = self._get_learning_rate()
        data = getattr(self.trainer, "datamodule", None)
        rows = self._nonfinite_batch.rows_of_first_rank()
        paths = list_image_paths(rows, data)
        first_batch = ""
        if paths:
            first_batch = f" First in the batch of {paths}."
        return NonfiniteLossError(
            f"the {kind} loss became {loss} in epoch {epoch}, at or before step "
            f"{self.global_step}, with a learning rate of {rate:.2g}.{first_batch} Lower "
            "optimizer.lr, clip gradients with trainer.gradient_clip_val=1.0, or train in "
            "float32 with trainer.precision=32-true"
        )

    def _scale_to_whole_batch(self, loss: Tensor, targets: Tensor, share: BatchShare) -> Tensor:
        """Scale the loss of a rank: the mean over ranks is then that of the whole batch."""
        divisor = get_weight_sum(self.loss, targets)
        if divisor is None:
            if share.num_samples % share.world_size == 0:
                return loss
            divisor = loss.new_tensor(len(targets))
        return scale_to_joint_mean(loss, divisor)

    def _reset_evaluation(self) -> None:
        self._eval_metrics.reset()
        self._eval_batches = []

    def _evaluate_batch(self, batch: ClassificationBatch) -> None:
        # In float32 at any training precision, like the deployed model.
        with torch.autocast(self.device.type, enabled=False):
            logits = self(batch["images"])
        labels = batch["labels"]
        self._eval_metrics.update(logits, labels)

        if "index" in batch:
            index = batch["index"]
        else:
            start = sum(len(previous) for previous, _, _ in self._eval_batches)
            index = torch.arange(start, start + len(logits))
        self._eval_batches.append((logits, labels, index))

    def _finish_evaluation(self, split: str) -> None:
        values = self._eval_metrics.compute()
        self.class_accuracy = values.pop(CLASS_ACCURACY).cpu()
        self.outputs = _gather_outputs(split, self._eval_batches)

        loss = self._evaluation_loss()
        self.log(f"{split}_loss", loss, prog_bar=split == "valid")
        for name, value in values.items():
            self.log(f"{split}_{name}", value, prog_bar=split == "valid" and name == "top1")

        is_training = self.trainer.state.fn == "fit"
        if is_training:
            self.log_dict(self._resumed_epoch_metrics)
        if is_training and split == "valid" and not self.trainer.sanity_checking:
            # The last training step may have made the weights NaN; its loss was computed before the
            # update.
            if loss.isnan():
                raise self._nonfinite_error("validation", float(loss))
            self._step_plateau({"loss": loss, **values})
        self._reset_evaluation()

    def _evaluation_loss(self) -> Tensor:
        if self.trainer.world_size > 1:
            return _mean_loss(self._eval_batches)
        assert self.outputs is not None
        loss = functional.cross_entropy(self.outputs.logits, self.outputs.labels)
        return loss.to(self.device)

    def _step_plateau(self, values: dict[str, Tensor]) -> None:
        if self._plateau is not None:
            monitor = self._plateau.monitor.removeprefix("valid_")
            self._plateau.step(float(values[monitor]))


def _seed_generators(seed: int, device: torch.device) -> None:
    """Seed the generators of the CPU and of one device.

    `torch.manual_seed` seeds all device types. For those not in use, it stores each call with a
    formatted stack trace in a list that grows with every step (torch 2.15).
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


def _gather_outputs(
    split: str, batches: list[tuple[Tensor, Tensor, Tensor]]
) -> EvaluationOutputs | None:
    """Return the outputs of all ranks in row order; None on all ranks but the first."""
    logits, labels, index = zip(*batches, strict=True)
    rows = gather_rows([torch.cat(logits), torch.cat(labels), torch.cat(index)])
    if rows is None:
        return None
    order = rows[2].argsort()
    return EvaluationOutputs(
        split=split,
        logits=rows[0][order].cpu(),
        labels=rows[1][order].cpu(),
        index=rows[2][order].cpu(),
    )


def _mean_loss(batches: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """Return the mean negative log-likelihood over the rows of all ranks."""
    logits = torch.cat([each for each, _, _ in batches])
    labels = torch.cat([each for _, each, _ in batches])
    total = functional.cross_entropy(logits.double(), labels, reduction="sum")
    count = total.new_tensor(float(len(labels)))
    sums = sum_over_ranks(torch.stack([total, count]))
    mean = sums[0] / sums[1]
    return mean.float()
