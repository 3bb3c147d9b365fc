"""Build torchvision's classifiers by name.

Shapes: N images of H x W pixels.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torchvision.models import get_model

from cls_data import evaluation_mode
from cls_export.contract.suggestions import did_you_mean
from cls_models.backbones.heads import BackboneError, set_dropout, set_pooling
from cls_models.backbones.init_from import load_by_class_name
from cls_models.backbones.names import BACKBONES
from cls_models.backbones.pretrained import get_pretrained_input, load_weights
from cls_models.backbones.stem import choose_stem, use_small_stem

_MAX_SIDE = 1024
"""Largest square that is tried for a suggestion, in pixels."""
_COMMON_SIDES = (224, 256, 384, 518)
"""Sides of published networks in pixels; 518 is a multiple of 14."""

_INCEPTION_OPTIONS = {"aux_logits": False, "transform_input": True, "init_weights": True}
"""Options of GoogLeNet and Inception v3.

With `transform_input` they take ImageNet's mean and std, like all other networks, and convert the
input themselves. Random networks use it too, so one state dict means one network. torchvision warns
unless `init_weights` is set."""


def build_backbone(
    name: str,
    num_classes: int,
    weights: str | None = None,
    *,
    image_size: Sequence[int] | None = None,
    stem: str = "auto",
    dropout: float | None = None,
    pooling: str = "average",
    init_from: str | None = None,
    classes: Sequence[str] | None = None,
) -> nn.Module:
    """Build a network that maps float32 [N, 3, H, W] to logits float32 [N, num_classes].

    The network's attribute `stem_kind` is the stem that was built, `standard` or `small`.

    Args:
        name: One of `BACKBONES`. Auxiliary outputs (GoogLeNet, Inception) are left out.
        num_classes: At least 2.
        weights: None for random weights; `DEFAULT` or another of torchvision's names, such as
            IMAGENET1K_V1, for published weights, downloaded once; or the path of a state dict in
            torchvision's format. A head with another number of rows stays random.
        image_size: H and W. Vision transformers and MaxViT are built for this size. None uses the
            size that the weights were trained on, or 224x224.
        stem: For ResNets, `standard` or `small` (3x3, stride 1, no max-pool). `auto` is `small` if
            H and W are at most 32 and `weights` is None. With `small` and weights, the first
            convolution stays random.
        dropout: Dropout rate of the features before the head; None keeps the default of the
            network.
        pooling: `average`, or `max` if the network has a global pooling layer.
        init_from: A run or checkpoint to start from; head rows are matched by class name.
        classes: Class names in index order; required with `init_from`.

    Raises:
        BackboneError: A name is unknown, a setting is out of range, the network does not support
            the image size, or the weights cannot be downloaded, read, or fitted.
    """
    if name not in BACKBONES:
        raise BackboneError(f"unknown backbone {name!r}; {did_you_mean(name, BACKBONES)}")

    check_class_arguments(num_classes, weights, init_from, classes)
    size = parse_image_size(image_size)

    stem_kind = choose_stem(name, stem, size, pretrained=weights is not None)
    network = _build_network(name, num_classes, weights, size)
    network.stem_kind = stem_kind
    if stem_kind == "small":
        use_small_stem(network)

    if weights is not None:
        load_weights(network, name, weights)

    set_pooling(network, pooling)
    if dropout is not None:
        set_dropout(network, dropout)
    if init_from is not None and classes is not None:
        load_by_class_name(network, init_from, classes)
    return network  # type: ignore[no-any-return]


def check_class_arguments(
    num_classes: int, weights: str | None, init_from: str | None, classes: Sequence[str] | None
) -> None:
    """Check the arguments of `build_backbone` that depend on the classes."""
    if num_classes < 2:
        raise BackboneError(f"num_classes must be at least 2, got {num_classes}")
    if init_from is None:
        return
    if weights is not None:
        raise BackboneError(
            f"init_from {init_from!r} replaces all weights, so weights={weights!r} has no effect; "
            "remove one of them"
        )
    if classes is None or len(classes) != num_classes:
        given = "none" if classes is None else len(classes)
        raise BackboneError(f"init_from needs the names of the {num_classes} classes, got {given}")


def parse_image_size(image_size: Sequence[int] | None) -> tuple[int, int] | None:
    """Return H and W as a tuple, or None."""
    if image_size is None:
        return None
    if len(image_size) != 2 or min(image_size) < 1:
        raise BackboneError(
            f"image_size must be a height and a width in pixels, got {list(image_size)}"
        )
    height, width = image_size
    return height, width


def check_image_size(
    name: str, size: tuple[int, int], accepts: Callable[[tuple[int, int]], bool]
) -> None:
    """Check that a network `accepts` an image size; the error suggests square sizes that work."""
    if accepts(size):
        return
    if not any(accepts((side, side)) for side in _COMMON_SIDES):
        return  # no size works, so this network cannot be tested on meta tensors
    smallest = _find_square(1, accepts)
    next_larger = _find_square(max(size), accepts)
    message = (
        f"{name} does not support images of {size[0]}x{size[1]} pixels; the smallest square that "
        f"works is {smallest}"
    )
    if next_larger not in (None, smallest):
        message += f", the next larger one {next_larger}"
    raise BackboneError(f"{message}. Change preprocessing.size, or choose another network")


def accepts_size(network: nn.Module, size: tuple[int, int]) -> bool:
    """Return whether a network runs on images of H x W.

    Runs one forward pass on meta tensors, which takes milliseconds for any network.
    """
    meta_tensors = {}
    for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
        meta_tensors[name] = tensor.detach().to("meta")

    images = torch.empty(2, 3, *size, device="meta")

    try:
        with torch.no_grad(), evaluation_mode(network):
            functional_call(network, meta_tensors, (images,))
    except (RuntimeError, AssertionError, ValueError):
        return False
    return True


def _build_network(
    name: str, num_classes: int, weights: str | None, size: tuple[int, int] | None
) -> Any:
    """Build a network with random weights, and check that it supports the image size."""
    if not name.startswith(("vit_", "maxvit_")):
        options: dict[str, Any] = {}
        if name in ("googlenet", "inception_v3"):
            options = _INCEPTION_OPTIONS
        network = get_model(name, weights=None, num_classes=num_classes, **options)
        if size is not None:
            check_image_size(name, size, partial(accepts_size, network))
        return network

    # The layers of these networks depend on the image size, so it is checked before building.
    pretrained_input = get_pretrained_input(name, weights)
    if size is None and pretrained_input is not None:
        size = pretrained_input.size
    if size is None:
        return get_model(name, weights=None, num_classes=num_classes)
    check_image_size(name, size, partial(_built_network_accepts_size, name))
    return get_model(name, weights=None, num_classes=num_classes, **_size_option(name, size))


def _size_option(name: str, size: tuple[int, int]) -> dict[str, Any]:
    if name.startswith("vit_"):
        return {"image_size": size[0]}
    return {"input_size": size}


def _built_network_accepts_size(name: str, size: tuple[int, int]) -> bool:
    try:
        with torch.device("meta"):
            network = get_model(name, weights=None, **_size_option(name, size))
    except (AssertionError, ValueError):
        return False
    return accepts_size(network, size)


def _find_square(start: int, accepts: Callable[[tuple[int, int]], bool]) -> str | None:
    for side in range(start, _MAX_SIDE):
        if accepts((side, side)):
            return f"{side}x{side}"
    return None
