"""Freezing, gradual unfreezing, and layer-wise learning rates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from torch import nn

from cls_models.backbones.layer_ids import get_layer_ids

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_MIN_LR_SCALE = 1e-3
"""Fraction of the learning rate below which fine-tuning has almost no effect on a layer."""


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """Settings for fine-tuning a backbone.

    They have no state: the epoch alone determines what trains, so a resumed run is the same.

    A frozen layer gets no gradient, so torch's optimizers change it neither by weight decay nor by
    momentum. Its batch norms keep their running statistics, and its dropout and stochastic depth
    are off, so it computes the same function at every step. The optimizer has all parameters from
    the start, which keeps its groups, also in checkpoints, the same in every epoch. Parameters that
    are unfrozen later start with empty optimizer state.

    Layers are numbered by `get_layer_ids`.

    Attributes:
        frozen: Layers that are frozen at first: "none", "all_but_head", or a number of layers from
            the stem.
        unfreeze_at: Increasing epochs, counted from 0, at whose start frozen layers are unfrozen.
            The frozen layers are split into as many nearly equal blocks; the first epoch unfreezes
            the block next to the head, the last one the stem (gradual unfreezing: Howard and Ruder,
            arXiv:1801.06146, section 3.3).
        layer_decay: Factor of the learning rate from one layer to the layer before it, above 0 and
            at most 1; the head has the full rate (ELECTRA, arXiv:2003.10555, appendix A; BEiT,
            arXiv:2106.08254, appendix H). 1 gives all layers the same rate.
        batch_norm: "frozen" keeps the running statistics, scales, and shifts of all batch norms,
            for batches too small to estimate them; "train" keeps those of frozen layers only.
        cache_features: Compute the head's input once and train on it. Requires that only the head
            trains, on images that are the same in every epoch.

    Raises:
        ValueError: A setting is out of range or has no effect.
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
                f"layer_decay must be above 0 and at most 1 (off), got {self.layer_decay}"
            )
        if self.batch_norm not in ("train", "frozen"):
            raise ValueError(f"batch_norm must be 'train' or 'frozen', got {self.batch_norm!r}")
        if self.cache_features and not self.trains_head_only:
            raise ValueError(
                "cache_features needs frozen: all_but_head and no unfreeze_at, because training "
                "other layers changes the features"
            )

    @property
    def trains_head_only(self) -> bool:
        """Whether only the head trains, in all epochs."""
        return self.frozen == "all_but_head" and not self.unfreeze_at

    def count_frozen_layers(self, layers: int, epoch: int) -> int:
        """Return how many of `layers`, counted from the stem, are frozen in an epoch (from 0)."""
        frozen = self._count_initially_frozen(layers)
        blocks = len(self.unfreeze_at)
        if blocks == 0:
            return frozen
        unfrozen_blocks = sum(1 for start in self.unfreeze_at if start <= epoch)
        frozen_blocks = blocks - unfrozen_blocks
        return frozen * frozen_blocks // blocks

    def freeze_for_epoch(self, backbone: nn.Module, epoch: int) -> None:
        """Freeze the layers that do not train in an epoch, and unfreeze all others.

        Call it at the start of training *and* of each epoch: Lightning does not call the
        epoch-start hook when it resumes in the middle of an epoch.
        """
        layer_ids = get_layer_ids(backbone)
        frozen = self.count_frozen_layers(_count_layers(layer_ids), epoch)
        frozen_norms = self._get_frozen_batch_norm_names(backbone)

        for name, parameter in backbone.named_parameters():
            parameter.requires_grad_(layer_ids[name] >= frozen and name not in frozen_norms)
            if not parameter.requires_grad:
                # Optimizers skip parameters without a gradient, but decay those with a zero one.
                parameter.grad = None

        if backbone.training:
            backbone.train()  # for layers that were frozen until now
            self.set_frozen_to_eval(backbone)

    def set_frozen_to_eval(self, backbone: nn.Module) -> None:
        """Put frozen modules into evaluation mode; call it after every `train()`.

        Dropout between frozen layers, as in the classifiers of VGG and AlexNet, stays on.
        """
        for module in backbone.modules():
            states = [parameter.requires_grad for parameter in module.parameters()]
            is_frozen = bool(states) and not any(states)
            is_batch_norm = isinstance(module, _BATCH_NORMS)
            if is_frozen or (is_batch_norm and self.batch_norm == "frozen"):
                module.eval()

    def get_lr_scales(self, backbone: nn.Module) -> dict[str, float]:
        """Return each parameter's fraction of the learning rate, by dotted name."""
        layer_ids = get_layer_ids(backbone)
        last = _count_layers(layer_ids) - 1
        scales = {}
        for name, number in layer_ids.items():
            layers_to_head = last - number
            scales[name] = self.layer_decay**layers_to_head
        return scales

    def find_ineffective_settings(self, backbone: nn.Module, epochs: int) -> list[str]:
        """Return a sentence for each setting that has no effect, or an unlikely one."""
        layers = _count_layers(get_layer_ids(backbone))
        frozen_at_end = self.count_frozen_layers(layers, epochs - 1)
        frozen_at_start = self._count_initially_frozen(layers)
        notes = []

        late = [epoch for epoch in self.unfreeze_at if epoch >= epochs]
        if late:
            notes.append(
                f"unfreeze_at {late} is not reached in {epochs} epochs, so {frozen_at_end} of "
                f"{layers} layers never train"
            )
        if len(self.unfreeze_at) > frozen_at_start:
            notes.append(
                f"unfreeze_at has {len(self.unfreeze_at)} epochs for {frozen_at_start} layers"
            )

        lowest_scale = self.layer_decay ** (layers - 1 - frozen_at_end)
        if self.layer_decay < 1 and frozen_at_end == layers - 1:
            notes.append(
                f"layer_decay {self.layer_decay} has no effect: only the head trains, and it has "
                "the full learning rate"
            )
        elif lowest_scale < _MIN_LR_SCALE:
            suggestion = 0.05 ** (1 / (layers - 1))
            notes.append(
                f"layer_decay {self.layer_decay} leaves the lowest trained layer of {layers} with "
                f"{lowest_scale:.0e} of the learning rate; {suggestion:.2f} would leave the stem "
                "with one twentieth"
            )

        has_batch_norm = any(isinstance(module, _BATCH_NORMS) for module in backbone.modules())
        if self.batch_norm == "frozen" and not has_batch_norm:
            notes.append("batch_norm 'frozen' has no effect: the backbone has no batch norm")
        return notes

    def _count_initially_frozen(self, layers: int) -> int:
        if self.frozen == "none":
            return 0
        if self.frozen == "all_but_head":
            return layers - 1
        if self.frozen >= layers:
            raise ValueError(
                f"frozen is {self.frozen} layers, but the backbone has {layers} and its last one, "
                f"the head, must train; use at most {layers - 1}, or 'all_but_head'"
            )
        return self.frozen

    def _check_frozen(self) -> None:
        if self.frozen in ("none", "all_but_head"):
            return
        is_number = isinstance(self.frozen, int) and not isinstance(self.frozen, bool)
        if not is_number or int(self.frozen) < 0:
            raise ValueError(
                f"frozen must be 'none', 'all_but_head', or a number of layers, got {self.frozen!r}"
            )

    def _check_unfreeze_at(self) -> None:
        epochs = self.unfreeze_at
        is_valid = all(isinstance(epoch, int) and epoch >= 1 for epoch in epochs)
        if not is_valid or any(first >= second for first, second in pairwise(epochs)):
            raise ValueError(
                f"unfreeze_at must be increasing epochs of at least 1, got {list(epochs)}"
            )
        if epochs and self.frozen in ("none", 0):
            raise ValueError(
                f"unfreeze_at {list(epochs)} has nothing to unfreeze; set frozen as well"
            )

    def _get_frozen_batch_norm_names(self, backbone: nn.Module) -> set[str]:
        names = set()
        if self.batch_norm == "frozen":
            for path, module in backbone.named_modules():
                if isinstance(module, _BATCH_NORMS):
                    for name, _ in module.named_parameters(recurse=False):
                        names.add(f"{path}.{name}".removeprefix("."))
        return names


def _count_layers(layer_ids: Mapping[str, int]) -> int:
    return max(layer_ids.values()) + 1
