"""Build timm's networks by name. Needs `cls-models[timm]` (Apache-2.0)."""

import importlib
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from cls_export.contract.suggestions import did_you_mean
from cls_models.backbones.heads import BackboneError, check_dropout_rate
from cls_models.backbones.init_from import load_by_class_name
from cls_models.backbones.pretrained import PretrainedInput, fit_state_dict, read_state_dict
from cls_models.backbones.torchvision_backbones import (
    accepts_size,
    check_class_arguments,
    check_image_size,
    parse_image_size,
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
    """Build a timm network that maps float32 [N, 3, H, W] to logits float32 [N, num_classes].

    Args:
        name: timm's name, with or without the tag of its weights: `resnet18`,
            `vit_tiny_patch16_224.augreg_in21k`.
        num_classes: At least 2.
        weights: None for random weights; `DEFAULT` for the weights that timm publishes under
            `name`, downloaded once; or the path of a state dict. A head with another number of rows
            stays random.
        image_size: H and W. Networks of a fixed size are built for it. None means timm's default.
        dropout: Dropout rate of the features before the head; None means timm's default.
        init_from: A run or checkpoint to start from; head rows are matched by class name.
        classes: Class names in index order; required with `init_from`.

    Raises:
        BackboneError: As for `build_backbone`, or the network has several heads.
        ImportError: timm is not installed.
    """
    timm = _import_timm()
    _check_name(timm, name)
    check_class_arguments(num_classes, weights, init_from, classes)
    size = parse_image_size(image_size)

    options: dict[str, Any] = {"num_classes": num_classes}
    if dropout is not None:
        check_dropout_rate(dropout)
        options["drop_rate"] = dropout
    network: nn.Module = _build_network(timm, name, size, options, weights == "DEFAULT")
    _check_single_head(network, name)

    if weights is not None and weights != "DEFAULT":
        fit_state_dict(network, read_state_dict(weights), f"{name} weights {weights!r}")
    if init_from is not None and classes is not None:
        load_by_class_name(network, init_from, classes)
    return network


def get_timm_pretrained_input(name: str, weights: str | None) -> PretrainedInput | None:
    """Return the input that timm's weights expect, without a download; None for random weights.

    Raises:
        BackboneError: The name is unknown.
        ImportError: timm is not installed.
    """
    if weights is None:
        return None
    timm = _import_timm()
    _check_name(timm, name)
    config = timm.get_pretrained_cfg(name)
    _, height, width = config.input_size
    return PretrainedInput(
        mean=tuple(config.mean),
        std=tuple(config.std),
        size=(height, width),
        # Rounded down, as in timm's own transform.
        resize_size=int(min(height, width) / config.crop_pct),
        interpolation=config.interpolation,
    )


def _import_timm() -> Any:
    try:
        # Not an import statement, because type checking must work without the optional package.
        return importlib.import_module("timm")
    except ImportError as error:
        raise ImportError(
            f'{error.name} is missing; timm backbones need: pip install "cls-models[timm]"'
        ) from error


def _check_name(timm: Any, name: str) -> None:
    if not timm.is_model(name):
        hint = did_you_mean(name, timm.list_models())
        raise BackboneError(f"unknown timm backbone {name!r}; {hint}")

    architecture, _, tag = name.partition(".")
    if not tag:
        return
    tags = []
    for tagged_name in timm.list_pretrained(f"{architecture}.*"):
        tags.append(tagged_name.partition(".")[2])
    if not tags:
        raise BackboneError(
            f"unknown tag {tag!r} of timm backbone {name!r}; {architecture} has no weights"
        )

    if tag not in tags:
        hint = did_you_mean(tag, tags)
        raise BackboneError(f"unknown tag {tag!r} of timm backbone {name!r}; {hint}")


def _build_network(
    timm: Any, name: str, size: tuple[int, int] | None, options: dict[str, Any], pretrained: bool
) -> Any:
    config = timm.get_pretrained_cfg(name)
    if size is not None and config is not None and config.fixed_input_size:
        check_image_size(name, size, partial(_built_network_accepts_size, timm, name))
        return _create_model(timm, name, {**options, "img_size": size}, pretrained)

    network = _create_model(timm, name, options, pretrained)
    if size is not None:
        check_image_size(name, size, partial(accepts_size, network))
    return network


def _check_single_head(network: Any, name: str) -> None:
    # Only one of several heads would be matched by class name, and trained when all else is frozen.
    heads = network.get_classifier()
    if isinstance(heads, tuple | list | nn.ModuleList):
        raise BackboneError(
            f"timm backbone {name} averages the logits of {len(heads)} heads, which is not "
            "supported. Choose another network, such as the variant without distillation"
        )


def _create_model(timm: Any, name: str, options: dict[str, Any], pretrained: bool) -> Any:
    try:
        return timm.create_model(name, pretrained=pretrained, **options)
    except Exception as error:  # network, cache, hub, and timm each raise their own types
        if not pretrained:
            raise BackboneError(f"timm cannot build {name} with {options} ({error})") from error
        raise BackboneError(
            f"timm's weights for {name} cannot be loaded ({error}). Train from random weights with "
            "model.weights=null, or pass the path of a state dict with model.weights=PATH"
        ) from error


def _built_network_accepts_size(timm: Any, name: str, size: tuple[int, int]) -> bool:
    try:
        with torch.device("meta"):
            network = timm.create_model(name, img_size=size)
    except (AssertionError, RuntimeError, TypeError, ValueError):
        return False
    return accepts_size(network, size)
