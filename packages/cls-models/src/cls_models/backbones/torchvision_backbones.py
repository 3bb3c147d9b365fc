"""Every classifier of torchvision by name, from random or from given weights.

Shapes: N images of H x W pixels.
"""

import difflib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torchvision
from torch import nn
from torch.func import functional_call
from torchvision.models import get_model, list_models

from cls_models.backbones.heads import BackboneError as BackboneError  # its public place
from cls_models.backbones.heads import set_dropout, set_pooling
from cls_models.backbones.init_from import load_by_class_name
from cls_models.backbones.pretrained import get_pretrained_input, load_weights
from cls_models.backbones.stem import choose_stem, use_small_stem

BACKBONES: tuple[str, ...] = tuple(list_models(module=torchvision.models))
"""The names of torchvision's classifiers."""

_SEARCH_TO = 1024
_COMMON_SIDES = (224, 256, 384, 518)
"""Of published networks, in pixels; 518 is a multiple of 14."""

_OPTIONS: dict[str, dict[str, Any]] = {
    # Their published weights take ImageNet's mean and std, as everybody's do, and change to their own inside. So do
    # ours, pretrained or not: one state dict means one network. Where init_weights is not said, torchvision warns.
    "googlenet": {"aux_logits": False, "transform_input": True, "init_weights": True},
    "inception_v3": {"aux_logits": False, "transform_input": True, "init_weights": True},
}


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

    The network's attribute `stem_kind` records which stem was built, `standard` or `small`.

    Args:
        name: one of `BACKBONES`. Auxiliary outputs (GoogLeNet, Inception) are left out.
        num_classes: at least 2.
        weights: None for random ones; `DEFAULT` for torchvision's best or another of its names (IMAGENET1K_V1, ...),
            downloaded once; else the path of a state dict as torchvision publishes them. A head of another size than
            `num_classes` stays random, which is logged.
        image_size: H and W. Vision transformers and MaxViT are built for it, and an image that is too small for the
            network is refused. None stands for what the weights were trained on, else 224 x 224.
        stem: for ResNets, `standard` or `small` (3x3, stride 1, no max-pool). `auto` is `small` where H and W are at
            most 32 and `weights` is None. With `small` and weights, the first convolution stays random.
        dropout: the share of features dropped in front of the head while training; None leaves the family's own.
        pooling: `average`, or `max` where the family has a last pooling layer.
        init_from: a run or checkpoint of ours to start from, its head's rows matched by the names of classes.
        classes: the names of this network's classes in index order; needed with `init_from` only.

    Raises:
        BackboneError: an unknown name or word, fewer than 2 classes, an image size that the network cannot take, or
            weights that cannot be downloaded, read or fitted.
    """
    if name not in BACKBONES:
        near = difflib.get_close_matches(name, BACKBONES, n=3, cutoff=0.0)
        raise BackboneError(
            f"unknown backbone {name!r}; did you mean {near[0]!r}, {near[1]!r} or {near[2]!r}?"
        )
    check_classes(num_classes, weights, init_from, classes)
    size = as_size(image_size)
    stem_kind = choose_stem(name, stem, size, pretrained=weights is not None)
    network = _network(name, num_classes, weights, size)
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


def check_classes(
    num_classes: int, weights: str | None, init_from: str | None, classes: Sequence[str] | None
) -> None:
    """Check what `build_backbone` is told of classes.

    Raises:
        BackboneError: fewer than 2 classes, or `init_from` with weights beside it or without the names of classes.
    """
    if num_classes < 2:
        raise BackboneError(f"num_classes must be at least 2, got {num_classes}")
    if init_from is None:
        return
    if weights is not None:
        raise BackboneError(
            f"init_from {init_from!r} replaces all weights, so weights={weights!r} has no effect; drop one"
        )
    if classes is None or len(classes) != num_classes:
        given = "none" if classes is None else len(classes)
        raise BackboneError(f"init_from needs the names of the {num_classes} classes, got {given}")


def as_size(image_size: Sequence[int] | None) -> tuple[int, int] | None:
    """Check H and W.

    Raises:
        BackboneError: not two numbers of at least 1.
    """
    if image_size is None:
        return None
    if len(image_size) != 2 or min(image_size) < 1:
        raise BackboneError(
            f"image_size must be a height and a width in pixels, got {list(image_size)}"
        )
    height, width = image_size
    return height, width


def check_image_size(
    name: str, size: tuple[int, int], takes: Callable[[tuple[int, int]], bool]
) -> None:
    """Refuse H and W that a network cannot take, and name square sizes that it can.

    Args:
        name: of the network, for the message.
        size: H and W.
        takes: says whether the network takes a height and a width.

    Raises:
        BackboneError: `takes` refuses `size`, and accepts some usual one.
    """
    if takes(size):
        return
    if not any(takes((side, side)) for side in _COMMON_SIDES):
        return  # no evidence against this size: such a network cannot be tried on shapes alone
    smallest = _next_square(1, takes)
    message = f"{name} cannot take images of {size[0]}x{size[1]} pixels; the smallest square that works is {smallest}"
    if (larger := _next_square(max(size), takes)) not in (None, smallest):
        message += f", the next from here {larger}"
    raise BackboneError(f"{message}. Set the size of the preprocessing, or choose another network")


def runs_at(network: nn.Module, size: tuple[int, int]) -> bool:
    """Say whether a network takes images of H x W: one forward on shapes alone, in milliseconds for any network."""
    tensors = [*network.named_parameters(), *network.named_buffers()]
    shapes = {name: tensor.detach().to("meta") for name, tensor in tensors}
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            functional_call(network, shapes, (torch.empty(2, 3, *size, device="meta"),))
    except (RuntimeError, AssertionError, ValueError):
        return False
    finally:
        network.train(training)
    return True


def _network(name: str, num_classes: int, weights: str | None, size: tuple[int, int] | None) -> Any:
    """Build with random weights; a network whose layers depend on the image size is tried on shapes alone first."""
    if not name.startswith(("vit_", "maxvit_")):
        network = get_model(name, weights=None, num_classes=num_classes, **_OPTIONS.get(name, {}))
        if size is not None:
            check_image_size(name, size, partial(runs_at, network))
        return network
    if size is None and (trained_on := get_pretrained_input(name, weights)):
        size = trained_on.size
    if size is None:
        return get_model(name, weights=None, num_classes=num_classes)
    check_image_size(name, size, partial(_sized_runs_at, name))
    return get_model(name, weights=None, num_classes=num_classes, **_sized(name, size))


def _sized(name: str, size: tuple[int, int]) -> dict[str, Any]:
    return {"image_size": size[0]} if name.startswith("vit_") else {"input_size": size}


def _sized_runs_at(name: str, size: tuple[int, int]) -> bool:
    try:
        with torch.device("meta"):
            network = get_model(name, weights=None, **_sized(name, size))
    except (AssertionError, ValueError):
        return False
    return runs_at(network, size)


def _next_square(start: int, takes: Callable[[tuple[int, int]], bool]) -> str | None:
    return next(
        (f"{side}x{side}" for side in range(start, _SEARCH_TO) if takes((side, side))), None
    )
