"""Learning from a teacher: a network that was trained before, usually a larger one.

Shapes: B images in a batch, C classes.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

_BACKBONE = "backbone."  # the network's prefix in the state_dict of a ClassificationModule
_LABELS = "labels_mapping.json"


class DistillationError(ValueError):
    """A teacher cannot be had as asked, or does not fit the student. The message says what to do instead."""


class BackboneFactory(Protocol):
    """Makes a network, everything but the number of classes being settled already."""

    def __call__(self, *, num_classes: int) -> nn.Module:
        """Return a network that maps images [B, 3, H, W] to logits [B, num_classes]."""
        ...


def distillation_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Return T^2 KL(softmax(teacher / T) || softmax(student / T)), the mean over the batch, in nats.

    Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", arXiv:1503.02531, section 2; the factor keeps
    the gradient's size about the same for all temperatures. Both logits are float [B, C]; the result is a scalar,
    computed in float32 at least. Its gradient by the student's logits is T (softmax(student / T) -
    softmax(teacher / T)) / B.
    """
    if student_logits.shape != teacher_logits.shape:
        raise DistillationError(
            f"the student gives logits {list(student_logits.shape)}, the teacher {list(teacher_logits.shape)}; "
            "both must know the same classes"
        )
    student, teacher = (
        _log_softened(logits, temperature) for logits in (student_logits, teacher_logits)
    )
    return temperature**2 * functional.kl_div(
        student, teacher, reduction="batchmean", log_target=True
    )


class Distillation:
    """Adds to a loss how far the student's answers are from the teacher's, on the very images that the student sees.

    The sum is (1 - share) hard_loss + share `distillation_loss`.

    It is no `nn.Module`, so that whoever holds it does not take in the teacher: the teacher is in no state_dict, no
    optimizer and no average. It stays in evaluation mode, without gradients, and follows the images to their device.

    Args:
        teacher: maps the student's images [B, 3, H, W] to logits [B, C], in the student's order of classes.
        temperature: T, above 0; the higher, the more the small probabilities count.
        share: of the soft part, 0 to 1; at 0 the teacher is not asked.

    Raises:
        DistillationError: a setting is out of range.
    """

    def __init__(self, teacher: nn.Module, temperature: float = 4.0, share: float = 0.5) -> None:
        if not 0 < temperature < math.inf:
            raise DistillationError(f"temperature must be above 0, got {temperature}")
        if not 0 <= share <= 1:
            raise DistillationError(
                f"share must be from 0 (labels alone) to 1 (teacher alone), got {share}"
            )
        self.teacher = teacher.eval().requires_grad_(False)
        self.temperature = temperature
        self.share = share
        self._device: torch.device | None = None

    def __call__(self, images: Tensor, student_logits: Tensor, hard_loss: Tensor) -> Tensor:
        """Return the loss of one batch.

        Args:
            images: float32 [B, 3, H, W], as the student got them.
            student_logits: float [B, C].
            hard_loss: scalar, the loss against the labels or mixed targets.

        Raises:
            DistillationError: teacher and student know different numbers of classes.
        """
        if self.share == 0:
            return hard_loss
        if images.device != self._device:
            self.teacher.to(images.device)
            self._device = images.device
        with torch.no_grad():  # not inference_mode, whose tensors a backward pass may not keep
            teacher_logits: Tensor = self.teacher(images)
        soft = distillation_loss(student_logits, teacher_logits, self.temperature)
        return (1 - self.share) * hard_loss + self.share * soft


def distillation_from_run(
    run: str | Path,
    backbone: BackboneFactory,
    classes: Sequence[str],
    mean: Sequence[float],
    std: Sequence[float],
    *,
    temperature: float = 4.0,
    share: float = 0.5,
) -> Distillation:
    """Distil from a teacher that another run has trained; see `load_teacher` and `Distillation` for the arguments."""
    return Distillation(load_teacher(run, backbone, classes, mean, std), temperature, share)


def load_teacher(
    run: str | Path,
    backbone: BackboneFactory,
    classes: Sequence[str],
    mean: Sequence[float],
    std: Sequence[float],
) -> nn.Module:
    """Load the best weights of a run as a network that answers for the student's images, in the student's terms.

    The teacher may have been trained with another order of classes, another normalisation and another image size: its
    logits are permuted, and the student's images are normalized as it knows them and squashed (bilinear, antialiased)
    to its size. How an image file became the student's image is not undone: a teacher that was trained on letterboxed
    images is shown squashed ones if the student's are, and answers worse.

    Args:
        run: a run's folder, for its best.ckpt; or a checkpoint, beside whose `checkpoints` folder or in whose own
            folder labels_mapping.json lies.
        backbone: makes the network that the checkpoint was written from.
        classes: the student's class names in index order.
        mean: by which the student's images are normalized; per channel, of pixels scaled to 0-1.
        std: as `mean`.

    Raises:
        DistillationError: a file is missing or damaged, the weights are of another network, or the teacher knows other
            classes.
    """
    checkpoint, labels = _places(Path(run))
    weights = _read_weights(checkpoint)
    known = _Known.read(labels)
    order = _order(known.classes, tuple(classes), checkpoint)
    with torch.random.fork_rng(
        devices=[]
    ):  # its initial weights must not shift the draws of the student's training
        network = backbone(num_classes=len(known.classes))
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise DistillationError(
            f"{checkpoint}: its weights are of another network than the {type(network).__name__} that was built for "
            f"them; name the network that the run trained ({error})"
        ) from error
    return _Translated(network, known, order, mean, std).eval().requires_grad_(False)


@dataclass(frozen=True, slots=True)
class _Known:
    """What labels_mapping.json says of the teacher's answers and images."""

    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int]

    @classmethod
    def read(cls, path: Path) -> "_Known":
        try:
            content = json.loads(path.read_bytes())
            indices: dict[str, int] = content["class_to_idx"]
            mean, std = (
                tuple(map(float, content["normalization"][key])) for key in ("mean", "std")
            )
            height, width = map(int, content["preprocessing"]["size"])
            if sorted(indices.values()) != list(range(len(indices))) or (len(mean), len(std)) != (
                3,
                3,
            ):
                raise ValueError(
                    "class_to_idx must hold each of 0..C-1 once, and mean and std 3 numbers each"
                )
        except OSError as error:
            raise DistillationError(
                f"{path}: cannot be read ({error.strerror}), so the teacher's classes are not known; name a run's "
                "folder, or put the run's labels_mapping.json there"
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DistillationError(f"{path}: not a run's labels mapping ({error!r})") from error
        return cls(tuple(sorted(indices, key=indices.__getitem__)), mean, std, (height, width))


class _Translated(nn.Module):
    """A teacher behind what turns the student's images into its own, and its logits into the student's order."""

    scale: Tensor
    shift: Tensor
    order: Tensor

    def __init__(
        self,
        network: nn.Module,
        known: _Known,
        order: Sequence[int],
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__()
        self.network = network
        self.size = known.size
        ours, own = torch.tensor([mean, std]), torch.tensor([known.mean, known.std])
        self.register_buffer("scale", (ours[1] / own[1])[:, None, None])
        self.register_buffer("shift", ((ours[0] - own[0]) / own[1])[:, None, None])
        self.register_buffer("order", torch.tensor(order))
        self._same_normalization = torch.equal(ours, own)

    def forward(self, images: Tensor) -> Tensor:
        if not self._same_normalization:
            images = images * self.scale + self.shift
        if images.shape[-2:] != self.size:
            images = functional.interpolate(images, self.size, mode="bilinear", antialias=True)
        logits: Tensor = self.network(images)
        return logits[:, self.order]


def _places(run: Path) -> tuple[Path, Path]:
    """Return where the checkpoint and the labels mapping lie."""
    if run.is_dir():
        return run / "checkpoints" / "best.ckpt", run / _LABELS
    return run, (run.parent.parent if run.parent.name == "checkpoints" else run.parent) / _LABELS


def _read_weights(checkpoint: Path) -> dict[str, Tensor]:
    if not checkpoint.is_file():
        raise DistillationError(
            f"{checkpoint}: no such checkpoint; name a run that has finished an epoch"
        )
    try:
        content: Any = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load reports a damaged or hostile file by many exceptions
        raise DistillationError(f"{checkpoint}: not a readable checkpoint ({error})") from error
    state = content.get("state_dict") if isinstance(content, Mapping) else None
    weights = {
        name.removeprefix(_BACKBONE): value
        for name, value in (state or {}).items()
        if name.startswith(_BACKBONE)
    }
    if not weights:
        raise DistillationError(
            f"{checkpoint}: holds no weights of a cls_models.ClassificationModule; name a run's checkpoint"
        )
    return weights


def _order(teacher: tuple[str, ...], student: tuple[str, ...], source: Path) -> list[int]:
    """Return the teacher's index of each of the student's classes."""
    if unlike := set(teacher) ^ set(student):
        lacking, foreign = sorted(unlike & set(student)), sorted(unlike & set(teacher))
        raise DistillationError(
            f"{source}: the teacher knows {len(teacher)} classes and the student {len(student)}, not the same ones: "
            f"{len(lacking)} of the student's are unknown to the teacher (such as {lacking[:5]}), {len(foreign)} of "
            f"the teacher's to the student (such as {foreign[:5]}); train a teacher on the student's classes"
        )
    return [teacher.index(name) for name in student]


def _log_softened(logits: Tensor, temperature: float) -> Tensor:
    return (logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature).log_softmax(
        dim=1
    )
