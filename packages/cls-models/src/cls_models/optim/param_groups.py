"""Build parameter groups with weight decay and layer-wise learning rates, and the optimizer."""

import inspect
from collections.abc import Callable, Iterable
from contextlib import suppress
from enum import IntEnum
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import nn
from torch.optim import Optimizer

from cls_models.backbones.layer_ids import get_layer_ids, get_weight_names
from cls_models.finetuning.transfer import Transfer
from cls_models.optim.channels_last_step import patch_channels_last_step


class _Kind(IntEnum):
    """Kind of a parameter. Groups are sorted by it, and checkpoints depend on their order."""

    WEIGHT = 0
    NO_DECAY = 1
    HIDDEN_MATRIX = 2


def build_param_groups(
    backbone: nn.Module, transfer: Transfer | None = None, extra_modules: Iterable[nn.Module] = ()
) -> list[dict[str, Any]]:
    """Return parameter groups for any torch optimizer, with each parameter in exactly one group.

    Keys of a group besides `params`:

    - `weight_decay`: 0 for parameters other than the weights of linear layers, convolutions, and
      attention; not set for these. Decay bounds the scale of a weight. Biases, norms, class tokens,
      position embeddings, and layer scales are offsets and gains, which it would only distort.
    - `lr_scale`: Fraction of the optimizer's learning rate, applied by `build_optimizer`; see
      `Transfer.layer_decay`.
    - `matrices`: Whether the parameters are hidden weight matrices, for `Muon`: weights of linear
      layers and of ungrouped convolutions between the stem and the head.

    The first group has lr_scale 1, so its rate is the one that is set and scheduled.

    Args:
        backbone: Without a transfer, only parameters that require a gradient are included. With
            one, all are, because it freezes and unfreezes them later.
        transfer: Sets the learning rates of layers.
        extra_modules: Other modules with parameters, such as a loss; they train at the full rate.
    """
    scales = transfer.get_lr_scales(backbone) if transfer else {}
    kinds = _get_kinds(backbone)
    members: dict[tuple[float, _Kind], list[nn.Parameter]] = {}
    for name, parameter in backbone.named_parameters():
        if transfer or parameter.requires_grad:
            key = (scales.get(name, 1.0), kinds[name])
            members.setdefault(key, []).append(parameter)

    included = {id(parameter) for parameter in backbone.parameters()}
    for module in extra_modules:
        weights = get_weight_names(module)
        for name, parameter in module.named_parameters():
            if parameter.requires_grad and id(parameter) not in included:
                kind = _Kind.WEIGHT if name in weights else _Kind.NO_DECAY
                members.setdefault((1.0, kind), []).append(parameter)
                included.add(id(parameter))

    groups = []
    for scale, kind in sorted(members, key=lambda key: (-key[0], key[1])):
        group = {
            "params": members[scale, kind],
            "lr_scale": scale,
            "matrices": kind == _Kind.HIDDEN_MATRIX,
        }
        if kind == _Kind.NO_DECAY:
            group["weight_decay"] = 0.0
        groups.append(group)
    return groups


def build_optimizer(
    factory: Callable[..., Optimizer],
    backbone: nn.Module,
    transfer: Transfer | None = None,
    extra_modules: Iterable[nn.Module] = (),
    *,
    fused: bool = True,
) -> Optimizer:
    """Build an optimizer from `build_param_groups`, and scale the learning rate of each group.

    Schedules start from the scaled rates.

    With `fused`, fused kernels are used if the optimizer and the device have them, unless the
    factory sets `fused` itself. On a CPU they take a quarter of the plain loop's time for AdamW.
    """
    groups = build_param_groups(backbone, transfer, extra_modules)
    unfreezes = transfer is not None and bool(transfer.unfreeze_at)
    if fused and _supports_fused(factory, groups, unfreezes):
        optimizer = factory(groups, fused=True)
    else:
        optimizer = factory(groups)
    if any(group.get("fused") for group in optimizer.param_groups):
        patch_channels_last_step(optimizer)
    for group in optimizer.param_groups:
        group["lr"] = group["lr"] * group["lr_scale"]
    return optimizer


def is_fused_allowed(trainer: Trainer) -> bool:
    """Return whether a trainer works with a fused optimizer.

    A fused step undoes the loss scaling of float16 itself, so callbacks that log gradient norms
    would get scaled gradients. Lightning 2.6.6 also refuses to clip gradients for it, even in
    bfloat16, which has no scaling.
    """
    plugin = trainer.precision_plugin
    scales_loss = getattr(plugin, "scaler", None) is not None
    clips_gradients = bool(trainer.gradient_clip_val) and isinstance(plugin, MixedPrecision)
    return not (scales_loss or clips_gradients)


def _supports_fused(
    factory: Callable[..., Optimizer], groups: list[dict[str, Any]], unfreezes: bool
) -> bool:
    """Return whether the factory leaves `fused` open and its fused kernels run on these parameters.

    torch has no public query for this and raises at the first step, so a step is run on parameters
    of one element. If parameters are unfrozen later, a second step follows with more of them:
    torch 2.15's fused SGD fails if only some parameters of a group have a momentum.
    """
    is_set = "fused" in getattr(factory, "keywords", {})
    if is_set or "fused" not in inspect.signature(factory).parameters:
        return False

    variants = set()
    for group in groups:
        for parameter in group["params"]:
            variants.add((parameter.device, parameter.dtype))

    with suppress(RuntimeError, TypeError):
        for device, dtype in variants:
            ones = [nn.Parameter(torch.ones(1, 1, device=device, dtype=dtype)) for _ in range(4)]
            optimizer = factory(
                [{"params": ones[:2], "matrices": True}, {"params": ones[2:], "matrices": False}],
                fused=True,
            )

            if unfreezes:
                _step_with_gradients(optimizer, ones[::2])
            _step_with_gradients(optimizer, ones)
        return True
    return False


def _step_with_gradients(optimizer: Optimizer, parameters: list[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()


def _get_kinds(backbone: nn.Module) -> dict[str, _Kind]:
    weights = get_weight_names(backbone)
    matrices = _get_hidden_names(backbone) - _get_non_matrix_names(backbone)
    kinds = {}
    for name, _ in backbone.named_parameters():
        if name not in weights:
            kinds[name] = _Kind.NO_DECAY
        elif name in matrices:
            kinds[name] = _Kind.HIDDEN_MATRIX
        else:
            kinds[name] = _Kind.WEIGHT
    return kinds


def _get_hidden_names(backbone: nn.Module) -> set[str]:
    """Return the parameters between the stem and the head."""
    try:
        layer_ids = get_layer_ids(backbone)
    except ValueError:  # the network has no head; only Muon and transfer need one
        return set()

    last = max(layer_ids.values(), default=0)
    return {name for name, number in layer_ids.items() if 0 < number < last}


def _get_non_matrix_names(backbone: nn.Module) -> set[str]:
    """Return the weights that do not map all inputs to all outputs."""
    return {
        f"{path}.weight"
        for path, module in backbone.named_modules()
        if isinstance(module, nn.Embedding) or getattr(module, "groups", 1) != 1
    }
