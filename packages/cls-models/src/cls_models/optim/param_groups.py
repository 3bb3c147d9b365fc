"""Which parameters decay, how fast each layer trains, and the optimizer made of both."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import nn
from torch.optim import Optimizer

from cls_models.backbones.layer_ids import layer_ids, weight_names
from cls_models.finetuning.transfer import Transfer
from cls_models.optim.channels_last_step import patch_channels_last_step

_WEIGHTS, _PLAIN, _MATRICES = range(3)


def param_groups(
    backbone: nn.Module, transfer: Transfer | None = None, others: Iterable[nn.Module] = ()
) -> list[dict[str, Any]]:
    """Return the parameters in groups, each parameter in exactly one, for any optimizer of torch.

    A group's keys besides `params`:

    - `weight_decay`: 0 for all but the weights of linear layers, convolutions and attention; else left to the
      optimizer. Decay bounds the scale of a weight; biases, norms, class tokens, position embeddings and layer
      scales are offsets and gains that it would only pull away from where they have to be.
    - `lr_scale`: share of the optimizer's learning rate, which `build_optimizer` applies; see `Transfer.layer_decay`.
    - `matrices`: whether these are the hidden weight matrices that `Muon` is meant for: dense weights, and filters
      of ungrouped convolutions, above the stem and below the head.

    The first group has lr_scale 1, so that its rate is the one that was set and scheduled.

    Args:
        backbone: its parameters that require a gradient, or all of them if there is a transfer, which will freeze
            and unfreeze them later.
        transfer: sets the layers' rates.
        others: modules beside the backbone with parameters of their own, such as a loss; they train as the head does.
    """
    scales = transfer.lr_scales(backbone) if transfer else {}
    members: dict[tuple[float, int], list[nn.Parameter]] = {}
    kinds = _kinds(backbone)
    for name, parameter in backbone.named_parameters():
        if transfer or parameter.requires_grad:
            members.setdefault((scales.get(name, 1.0), kinds[name]), []).append(parameter)
    known = {id(parameter) for parameter in backbone.parameters()}
    for parameter, kind in _of_others(others):
        if parameter.requires_grad and id(parameter) not in known:
            members.setdefault((1.0, kind), []).append(parameter)
            known.add(id(parameter))
    return [
        _group(*key, members[key]) for key in sorted(members, key=lambda key: (-key[0], key[1]))
    ]


def build_optimizer(
    factory: Callable[..., Optimizer],
    backbone: nn.Module,
    transfer: Transfer | None = None,
    others: Iterable[nn.Module] = (),
    *,
    fused: bool = True,
) -> Optimizer:
    """Make an optimizer of `param_groups`, each at its own share of the optimizer's learning rate.

    The rates are scaled once it is made, and every schedule starts from the rates that it finds in the groups.

    Args:
        factory: makes an optimizer from parameter groups; usually a partial of its class.
        backbone: as in `param_groups`.
        transfer: as in `param_groups`.
        others: as in `param_groups`.
        fused: use the fused kernels where the optimizer and the parameters' device have them, unless the factory
            says itself what `fused` is to be; on a CPU they take a quarter of the plain loop's time for AdamW.
    """
    groups = param_groups(backbone, transfer, others)
    staged = transfer is not None and bool(transfer.unfreeze_at)
    optimizer = (
        factory(groups, fused=True)
        if fused and _has_fused(factory, groups, staged)
        else factory(groups)
    )
    if any(group.get("fused") for group in optimizer.param_groups):
        patch_channels_last_step(optimizer)
    for group in optimizer.param_groups:
        group["lr"] = group["lr"] * group["lr_scale"]
    return optimizer


def fused_allowed(trainer: Trainer) -> bool:
    """Whether a trainer can work with a fused optimizer.

    Such a one undoes the loss scaling of float16 itself, in its step: what sees the gradients before, such as a
    callback that logs their norm, would see them times the scale, and Lightning 2.6.6 refuses to clip them, in bfloat16
    too, where there is no scaling.
    """
    scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
    clipped = bool(trainer.gradient_clip_val) and isinstance(
        trainer.precision_plugin, MixedPrecision
    )
    return not (scaled or clipped)


def _has_fused(
    factory: Callable[..., Optimizer], groups: list[dict[str, Any]], staged: bool
) -> bool:
    """Whether a factory leaves `fused` open, and the kernels are there for these parameters.

    Torch says so nowhere in public but in the first step, so one is taken on parameters of one element. Where some will
    begin to train late, a second one is taken with more of them: torch 2.15's fused SGD fails if only some parameters
    of a group have a momentum yet.
    """
    if (
        "fused" in getattr(factory, "keywords", {})
        or "fused" not in inspect.signature(factory).parameters
    ):
        return False
    with suppress(RuntimeError, TypeError):
        for device, dtype in {
            (parameter.device, parameter.dtype) for group in groups for parameter in group["params"]
        }:
            ones = [nn.Parameter(torch.ones(1, 1, device=device, dtype=dtype)) for _ in range(4)]
            tried = factory(
                [{"params": ones[:2], "matrices": True}, {"params": ones[2:], "matrices": False}],
                fused=True,
            )
            for training in (ones[::2], ones) if staged else (ones,):
                for one in training:
                    one.grad = torch.ones_like(one)
                tried.step()
        return True
    return False


def _group(scale: float, kind: int, params: list[nn.Parameter]) -> dict[str, Any]:
    group: dict[str, Any] = {"params": params, "lr_scale": scale, "matrices": kind == _MATRICES}
    return {**group, "weight_decay": 0.0} if kind == _PLAIN else group


def _kinds(backbone: nn.Module) -> Mapping[str, int]:
    weights = weight_names(backbone)
    hidden = _hidden(backbone) - _no_matrices(backbone)
    return {
        name: _PLAIN if name not in weights else _MATRICES if name in hidden else _WEIGHTS
        for name, _ in backbone.named_parameters()
    }


def _hidden(backbone: nn.Module) -> set[str]:
    try:
        numbers = layer_ids(backbone)
    except (
        ValueError
    ):  # a network of one's own without a head that can be found; only Muon and transfer need one
        return set()
    last = max(numbers.values(), default=0)
    return {name for name, number in numbers.items() if 0 < number < last}


def _no_matrices(backbone: nn.Module) -> set[str]:
    """Name the weights that are no linear map from all inputs to all outputs."""
    return {
        f"{path}.weight"
        for path, module in backbone.named_modules()
        if isinstance(module, nn.Embedding) or getattr(module, "groups", 1) != 1
    }


def _of_others(others: Iterable[nn.Module]) -> Iterator[tuple[nn.Parameter, int]]:
    for module in others:
        weights = weight_names(module)
        for name, parameter in module.named_parameters():
            yield parameter, _WEIGHTS if name in weights else _PLAIN
