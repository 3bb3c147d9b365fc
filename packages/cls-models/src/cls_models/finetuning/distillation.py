"""Knowledge distillation from a teacher network.

Shapes: B images in a batch, C classes.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from cls_export.contract.bundle_layout import LABELS_FILE
from cls_export.contract.errors import BundleError
from cls_export.contract.labels_mapping import LabelsMapping
from cls_export.contract.run_layout import CHECKPOINTS_FOLDER, RunPaths
from cls_models.torch_file import TorchFileError, get_backbone_state, read_torch_file

BackboneFactory = Callable[..., nn.Module]
"""Builds a network that maps images to logits [B, num_classes], given `num_classes`."""

_MAX_NAMES = 5
"""Class names listed in a message."""


class DistillationError(ValueError):
    """A teacher cannot be loaded or does not fit the student. The message says what to do."""


def distillation_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Return the batch mean of T^2 KL(softmax(teacher / T) || softmax(student / T)) in nats.

    Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", arXiv:1503.02531, section 2.
    The factor T^2 keeps the size of the gradient about the same at all temperatures. Both logits
    are float [B, C]; the result is a scalar of at least float32. Its gradient with respect to the
    student's logits is T (softmax(student / T) - softmax(teacher / T)) / B.
    """
    if student_logits.shape != teacher_logits.shape:
        raise DistillationError(
            f"the student's logits are {list(student_logits.shape)}, the teacher's "
            f"{list(teacher_logits.shape)}; both must have the same classes"
        )
    return temperature**2 * functional.kl_div(
        _soften(student_logits, temperature),
        _soften(teacher_logits, temperature),
        reduction="batchmean",
        log_target=True,
    )


class DistillationLoss:
    """Combine a loss with the distance between the student's and a teacher's predictions.

    The result is (1 - share) hard_loss + share `distillation_loss`, where the teacher gets exactly
    the student's images.

    This is not an `nn.Module`, so that the teacher does not become part of the student: it is in no
    state_dict, no optimizer, and no weight average. The teacher stays in evaluation mode, without
    gradients, and is moved to the images' device.

    Args:
        teacher: Maps the student's images [B, 3, H, W] to logits [B, C] in the student's class
            order.
        temperature: T, above 0. Higher values give small probabilities more weight.
        share: Weight of the distillation loss, from 0 to 1; at 0 the teacher does not run.

    Raises:
        DistillationError: An argument is out of range.
    """

    def __init__(self, teacher: nn.Module, temperature: float = 4.0, share: float = 0.5) -> None:
        if not 0 < temperature < math.inf:
            raise DistillationError(f"temperature must be above 0, got {temperature}")
        if not 0 <= share <= 1:
            raise DistillationError(
                f"share must be from 0 (labels only) to 1 (teacher only), got {share}"
            )
        self.teacher = teacher.eval().requires_grad_(False)
        self.temperature = temperature
        self.share = share
        self._device: torch.device | None = None

    def __call__(self, images: Tensor, student_logits: Tensor, hard_loss: Tensor) -> Tensor:
        """Return the loss of one batch.

        `images` are the student's input, and `hard_loss` is its loss for the labels or targets.
        """
        if self.share == 0:
            return hard_loss
        if images.device != self._device:
            self.teacher.to(images.device)
            self._device = images.device
        with torch.no_grad():  # not inference_mode, whose tensors cannot be saved for backward
            teacher_logits: Tensor = self.teacher(images)
        soft_loss = distillation_loss(student_logits, teacher_logits, self.temperature)
        return (1 - self.share) * hard_loss + self.share * soft_loss


def build_distillation(
    run: str | Path,
    backbone: BackboneFactory,
    classes: Sequence[str],
    mean: Sequence[float],
    std: Sequence[float],
    *,
    temperature: float = 4.0,
    share: float = 0.5,
) -> DistillationLoss:
    """Build a distillation loss from the run that trained the teacher.

    See `load_teacher` and `DistillationLoss` for the arguments.
    """
    teacher = load_teacher(run, backbone, classes, mean, std)
    return DistillationLoss(teacher, temperature, share)


def load_teacher(
    run: str | Path,
    backbone: BackboneFactory,
    classes: Sequence[str],
    mean: Sequence[float],
    std: Sequence[float],
) -> nn.Module:
    """Load the best weights of a run as a network for the student's images and classes.

    The teacher may have been trained with another class order, normalization, and image size. Its
    logits are permuted, and the student's images are normalized for it and resized to its size
    (bilinear, antialiased). The way the image file was resized cannot be undone: a teacher trained
    on letterboxed images is less accurate on squashed ones.

    Args:
        run: A run folder, for its best.ckpt; or a checkpoint in a run's `checkpoints` folder or
            next to its labels_mapping.json.
        backbone: Builds the network of the checkpoint.
        classes: The student's class names in index order.
        mean: Channel means of the student's normalization, for pixels scaled to 0-1.
        std: Channel standard deviations, likewise.

    Raises:
        DistillationError: A file is missing or damaged, the weights are from another network, or
            the teacher has other classes.
    """
    checkpoint, labels_path = _find_files(Path(run))
    if not checkpoint.is_file():
        raise DistillationError(
            f"{checkpoint}: no such checkpoint; use a run that has finished an epoch"
        )
    try:
        weights = get_backbone_state(read_torch_file(checkpoint), checkpoint)
        labels = LabelsMapping.load(labels_path)
    except (TorchFileError, BundleError) as error:
        raise DistillationError(f"cannot load the teacher: {error}") from error
    order = _match_classes(labels.classes, tuple(classes), checkpoint)
    # The teacher's initial weights must not change the student's random draws.
    with torch.random.fork_rng(devices=[]):
        network = backbone(num_classes=labels.num_classes)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise DistillationError(
            f"{checkpoint}: its weights do not fit the {type(network).__name__} that was built for "
            f"the teacher; use the model that the run trained ({error})"
        ) from error
    return _TeacherAdapter(network, labels, order, mean, std).eval().requires_grad_(False)


class _TeacherAdapter(nn.Module):
    """Convert the student's images for the teacher, and its logits to the student's class order."""

    scale: Tensor
    shift: Tensor
    order: Tensor

    def __init__(
        self,
        network: nn.Module,
        labels: LabelsMapping,
        order: Sequence[int],
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__()
        self.network = network
        self.size = labels.preprocessing.size
        student_mean, student_std = torch.tensor([mean, std])
        teacher_mean, teacher_std = torch.tensor(
            [labels.normalization.mean, labels.normalization.std]
        )

        scale = student_std / teacher_std
        shift = (student_mean - teacher_mean) / teacher_std
        self.register_buffer("scale", scale[:, None, None])
        self.register_buffer("shift", shift[:, None, None])
        self.register_buffer("order", torch.tensor(order))

        has_same_mean = torch.equal(student_mean, teacher_mean)
        has_same_std = torch.equal(student_std, teacher_std)
        self._is_same_normalization = has_same_mean and has_same_std

    def forward(self, images: Tensor) -> Tensor:
        if not self._is_same_normalization:
            images = images * self.scale + self.shift
        if images.shape[-2:] != self.size:
            images = functional.interpolate(images, self.size, mode="bilinear", antialias=True)
        logits: Tensor = self.network(images)
        return logits[:, self.order]


def _find_files(run: Path) -> tuple[Path, Path]:
    """Return the paths of the checkpoint and of its labels mapping."""
    if run.is_dir():
        paths = RunPaths(run)
        return paths.best, paths.labels
    if run.parent.name == CHECKPOINTS_FOLDER:
        return run, RunPaths.from_checkpoint(run).labels
    return run, run.with_name(LABELS_FILE)


def _match_classes(
    teacher: tuple[str, ...], student: tuple[str, ...], checkpoint: Path
) -> list[int]:
    """Return the teacher's index of each of the student's classes."""
    missing = sorted(set(student) - set(teacher))
    extra = sorted(set(teacher) - set(student))
    if missing or extra:
        raise DistillationError(
            f"{checkpoint}: the teacher has {len(teacher)} classes and the student {len(student)}, "
            f"but they must be the same: {len(missing)} are missing in the teacher (such as "
            f"{missing[:_MAX_NAMES]}), {len(extra)} are only in the teacher (such as "
            f"{extra[:_MAX_NAMES]}). Train a teacher on the student's classes"
        )

    return [teacher.index(name) for name in student]


def _soften(logits: Tensor, temperature: float) -> Tensor:
    """Return log_softmax(logits / T), in at least float32."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    softened = logits.to(dtype) / temperature
    return softened.log_softmax(dim=1)
