"""The networks of timm (Apache-2.0) by name, through the same door as torchvision's. Needs `cls-models[timm]`."""

import difflib
import importlib
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from cls_models.backbones.heads import BackboneError, check_rate
from cls_models.backbones.init_from import load_by_class_name
from cls_models.backbones.pretrained import PretrainedInput, fit_state_dict, read_state_dict
from cls_models.backbones.torchvision_backbones import (
    as_size,
    check_classes,
    check_image_size,
    runs_at,
)


def build_timm_backbone(
    name: str,
    num_classes: int,
    weights: str | None = None,
    *,
    image_size: Sequence[int] | None = None,
    dropout: float | None = None,
    init_from: str | None = None,
    classes: Sequence[str] | None = None,
) -> nn.Module:
    """Build a network of timm that maps float32 [N, 3, H, W] to logits float32 [N, num_classes].

    Args:
        name: as timm has it, with or without the tag of its weights: `resnet18`, `vit_tiny_patch16_224.augreg_in21k`.
        num_classes: at least 2.
        weights: None for random ones; `DEFAULT` for those that timm publishes under `name`, downloaded once; else the
            path of a state dict, whose head may have another number of rows and then stays random.
        image_size: H and W; networks of a fixed size are built for it, and a size that the network cannot take is
            refused. None leaves timm's own.
        dropout: the share of features dropped in front of the head while training; None leaves timm's own.
        init_from: a run or checkpoint of ours to start from, its head's rows matched by the names of classes.
        classes: the names of this network's classes in index order; needed with `init_from` only.

    Raises:
        BackboneError: an unknown name, a network of several heads, fewer than 2 classes, an image size that the network
            cannot take, or weights that cannot be downloaded, read or fitted.
        ImportError: timm is not installed.
    """
    timm = _timm()
    _check_name(timm, name)
    check_classes(num_classes, weights, init_from, classes)
    size = as_size(image_size)
    options: dict[str, Any] = {"num_classes": num_classes}
    if dropout is not None:
        check_rate(dropout)
        options["drop_rate"] = dropout
    network: nn.Module = _network(timm, name, size, options, pretrained=weights == "DEFAULT")
    _refuse_several_heads(network, name)
    if weights is not None and weights != "DEFAULT":
        fit_state_dict(network, read_state_dict(weights), f"{name} weights {weights!r}")
    if init_from is not None and classes is not None:
        load_by_class_name(network, init_from, classes)
    return network


def get_timm_pretrained_input(name: str, weights: str | None) -> PretrainedInput | None:
    """Say what input the weights expect that timm publishes under `name`; None for random ones. Nothing is downloaded.

    Raises:
        BackboneError: an unknown name.
        ImportError: timm is not installed.
    """
    if weights is None:
        return None
    timm = _timm()
    _check_name(timm, name)
    config = timm.get_pretrained_cfg(name)
    _, height, width = config.input_size
    return PretrainedInput(
        mean=tuple(config.mean),
        std=tuple(config.std),
        size=(height, width),
        resize_size=int(
            min(height, width) / config.crop_pct
        ),  # rounded down, as timm's own transform does
        interpolation=config.interpolation,
    )


def _timm() -> Any:
    try:
        return importlib.import_module(
            "timm"
        )  # not `import`: the type checker must not need an optional package
    except ImportError as error:
        raise ImportError(
            f'{error.name} is missing; timm backbones need: pip install "cls-models[timm]"'
        ) from error


def _check_name(timm: Any, name: str) -> None:
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.0)
        raise BackboneError(
            f"unknown timm backbone {name!r}; did you mean {near[0]!r}, {near[1]!r} or {near[2]!r}?"
        )
    _, _, tag = name.partition(".")
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{name.partition('.')[0]}.*")]
    if tag and tag not in tags:
        raise BackboneError(
            f"unknown tag {tag!r} of timm backbone {name!r}; known are {', '.join(tags) or 'none'}"
        )


def _network(
    timm: Any, name: str, size: tuple[int, int] | None, options: dict[str, Any], *, pretrained: bool
) -> Any:
    config = timm.get_pretrained_cfg(name)
    if size is not None and config is not None and config.fixed_input_size:
        check_image_size(name, size, partial(_sized_runs_at, timm, name))
        return _created(timm, name, {**options, "img_size": size}, pretrained)
    network = _created(timm, name, options, pretrained)
    if size is not None:
        check_image_size(name, size, partial(runs_at, network))
    return network


def _refuse_several_heads(network: Any, name: str) -> None:
    """Refuse networks that average the logits of several layers: only one of these would be taken for the head.

    Its rows alone would follow their classes from an earlier run, and it alone would train where all else is frozen.
    """
    if isinstance(heads := network.get_classifier(), tuple | list | nn.ModuleList):
        raise BackboneError(
            f"timm backbone {name} has {len(heads)} heads whose logits it averages, and here a network has one; choose "
            "another, or for a distilled one its like without a distillation token"
        )


def _created(timm: Any, name: str, options: dict[str, Any], pretrained: bool) -> Any:
    try:
        return timm.create_model(name, pretrained=pretrained, **options)
    except Exception as error:  # network, cache, hub and timm itself each have their own
        if not pretrained:
            raise BackboneError(f"timm cannot build {name} with {options} ({error})") from error
        raise BackboneError(
            f"timm's weights of {name} could not be had ({error}). Train from random weights with model.weights=null, "
            "or name the path of a state dict with model.weights=PATH"
        ) from error


def _sized_runs_at(timm: Any, name: str, size: tuple[int, int]) -> bool:
    try:
        with torch.device("meta"):
            network = timm.create_model(name, img_size=size)
    except (AssertionError, RuntimeError, TypeError, ValueError):
        return False
    return runs_at(network, size)
