"""Transfer: what of a pretrained backbone trains, from which epoch on, and how fast."""

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from torch import nn

from cls_models.backbones.layer_ids import layer_ids

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_HARDLY = 1e-3
"""Below this share of the learning rate a layer hardly moves in a fine-tuning."""


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """How a backbone is fine-tuned. It keeps no state: what trains follows from the epoch alone, so a run resumes.

    A frozen layer gets no gradient, and without one no optimizer of torch touches it, neither by weight decay nor by
    momentum; its batch norms keep their running statistics, and its dropout and stochastic depth are off, so that
    it is the same function at every step. All parameters are in the optimizer from the start, so that its groups,
    and a checkpoint's, are the same at every epoch; one that begins to train late begins with fresh moments.

    Layers are those of `layer_ids`.

    Attributes:
        frozen: what does not train at first: "none", "all_but_head", or a number of layers, counted from the stem.
        unfreeze_at: epochs, counted from 0 and rising, at whose starts frozen layers begin to train. The frozen ones
            fall into as many nearly equal parts; the first epoch frees the part nearest the head, the last one the
            stem (gradual unfreezing: Howard and Ruder, arXiv:1801.06146, section 3.3).
        layer_decay: factor of the learning rate from a layer to the one below it, above 0 to 1; the head has the
            full rate (ELECTRA, arXiv:2003.10555, appendix A; BEiT, arXiv:2106.08254, appendix H). 1 gives all layers
            the same.
        batch_norm: "frozen" keeps the running statistics, scales and shifts of every batch norm as they were loaded,
            for batches too small to estimate them; "train" does so in frozen layers only.
        cache_features: where the head alone trains, on images that are the same in every epoch: compute what goes
            into it once, and train on that.

    Raises:
        ValueError: a setting that is out of its range, or that has nothing to work on.
    """

    frozen: Literal["none", "all_but_head"] | int = "none"
    unfreeze_at: Sequence[int] = ()
    layer_decay: float = 1.0
    batch_norm: Literal["train", "frozen"] = "train"
    cache_features: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "unfreeze_at", tuple(self.unfreeze_at))  # YAML gives a list
        self._check_frozen()
        self._check_unfreeze_at()
        if not 0 < self.layer_decay <= 1:
            raise ValueError(
                f"layer_decay must be above 0 and at most 1 (which is off), got {self.layer_decay}"
            )
        if self.batch_norm not in ("train", "frozen"):
            raise ValueError(f"batch_norm must be 'train' or 'frozen', got {self.batch_norm!r}")
        if self.cache_features and not self.head_only:
            raise ValueError(
                "cache_features needs frozen: all_but_head and no unfreeze_at: other layers change them"
            )

    @property
    def head_only(self) -> bool:
        """Whether nothing but the head ever trains."""
        return self.frozen == "all_but_head" and not self.unfreeze_at

    def frozen_layers(self, layers: int, epoch: int) -> int:
        """Return how many layers, counted from the stem, do not train in an epoch.

        Args:
            layers: of the backbone, the head included.
            epoch: counted from 0.

        Raises:
            ValueError: more are to be frozen than there are below the head.
        """
        at_first = self._frozen_at_first(layers)
        parts = len(self.unfreeze_at)
        freed = sum(1 for start in self.unfreeze_at if start <= epoch)
        return at_first * (parts - freed) // parts if parts else at_first

    def apply(self, backbone: nn.Module, epoch: int) -> None:
        """Freeze what does not train in an epoch, and unfreeze all else; then `hold`.

        To be called when a training starts *and* when each of its epochs does: Lightning does not announce the
        start of an epoch in whose middle it resumes.

        Raises:
            ValueError: as `frozen_layers`, or the backbone has no head that can be found.
        """
        numbers = layer_ids(backbone)
        frozen = self.frozen_layers(_count(numbers), epoch)
        fixed = self._batch_norm_parameters(backbone)
        for name, parameter in backbone.named_parameters():
            parameter.requires_grad_(numbers[name] >= frozen and name not in fixed)
            if not parameter.requires_grad:
                parameter.grad = (
                    None  # optimizers pass by what has no gradient; one of zeros would still decay
                )
        if backbone.training:
            backbone.train()  # for what was frozen until now
            self.hold(backbone)

    def hold(self, backbone: nn.Module) -> None:
        """Put what is frozen into evaluation mode; to be called whenever `train()` has been.

        Dropout that stands by itself between frozen layers, as in the classifiers of VGG and AlexNet, stays on.
        """
        for module in backbone.modules():
            states = [parameter.requires_grad for parameter in module.parameters()]
            fixed = self.batch_norm == "frozen" and isinstance(module, _BATCH_NORMS)
            if fixed or (states and not any(states)):
                module.eval()

    def lr_scales(self, backbone: nn.Module) -> dict[str, float]:
        """Return each parameter's share of the learning rate, by dotted name: layer_decay ** (layers to the head)."""
        numbers = layer_ids(backbone)
        last = _count(numbers) - 1
        return {name: self.layer_decay ** (last - number) for name, number in numbers.items()}

    def notes(self, backbone: nn.Module, epochs: int) -> list[str]:
        """Return a sentence on each setting that has no effect, or an unlikely one, on this backbone in `epochs`."""
        layers = _count(layer_ids(backbone))
        left, found = self.frozen_layers(layers, epochs - 1), []
        if late := [epoch for epoch in self.unfreeze_at if epoch >= epochs]:
            found.append(
                f"unfreeze_at {late} is not reached in {epochs} epochs, so {left} of {layers} layers never train"
            )
        if len(self.unfreeze_at) > self._frozen_at_first(layers):
            found.append(
                f"unfreeze_at names {len(self.unfreeze_at)} epochs for {self._frozen_at_first(layers)} layers"
            )
        if self.layer_decay < 1 and left == layers - 1:
            found.append(
                f"layer_decay {self.layer_decay} has no effect: only the head trains, and it has the full rate"
            )
        elif (lowest := self.layer_decay ** (layers - 1 - left)) < _HARDLY:
            found.append(
                f"layer_decay {self.layer_decay} leaves the lowest layer that trains, of {layers}, {lowest:.0e} of the "
                f"learning rate; {0.05 ** (1 / (layers - 1)):.2f} would leave the stem a twentieth"
            )
        if self.batch_norm == "frozen" and not any(
            isinstance(module, _BATCH_NORMS) for module in backbone.modules()
        ):
            found.append("batch_norm 'frozen' has no effect: the backbone has no batch norm")
        return found

    def _frozen_at_first(self, layers: int) -> int:
        if self.frozen == "none":
            return 0
        if self.frozen == "all_but_head":
            return layers - 1
        if self.frozen >= layers:
            raise ValueError(
                f"frozen: {self.frozen} layers, but the backbone has {layers}, and the head, its last, has to train; "
                f"use at most {layers - 1}, or 'all_but_head'"
            )
        return self.frozen

    def _check_frozen(self) -> None:
        number = (
            isinstance(self.frozen, int) and not isinstance(self.frozen, bool) and self.frozen >= 0
        )
        if not number and self.frozen not in ("none", "all_but_head"):
            raise ValueError(
                f"frozen must be 'none', 'all_but_head' or a number of layers, got {self.frozen!r}"
            )

    def _check_unfreeze_at(self) -> None:
        epochs = self.unfreeze_at
        if any(not isinstance(epoch, int) or epoch < 1 for epoch in epochs) or not all(
            operator.lt(*pair) for pair in pairwise(epochs)
        ):
            raise ValueError(f"unfreeze_at must be rising epochs from 1 on, got {list(epochs)}")
        if epochs and self.frozen in ("none", 0):
            raise ValueError(
                f"unfreeze_at {list(epochs)} has nothing to unfreeze; set frozen as well"
            )

    def _batch_norm_parameters(self, backbone: nn.Module) -> frozenset[str]:
        if self.batch_norm == "train":
            return frozenset()
        return frozenset(
            f"{path}.{name}".removeprefix(".")
            for path, module in backbone.named_modules()
            if isinstance(module, _BATCH_NORMS)
            for name, _ in module.named_parameters(recurse=False)
        )


def _count(numbers: Mapping[str, int]) -> int:
    return max(numbers.values()) + 1
