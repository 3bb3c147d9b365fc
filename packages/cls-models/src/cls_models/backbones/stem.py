"""ResNet stems for large and small images."""

import logging
from typing import Any

from torch import nn

from cls_models.backbones.heads import BackboneError

STEMS = ("auto", "standard", "small")
SMALL_SIDE = 32
"""Longest image side in pixels for which `auto` builds the small stem.

The standard stem reduces a 32x32 image to an 8x8 map."""

_RESNETS = ("resnet", "resnext", "wide_resnet")
_log = logging.getLogger(__name__)


def choose_stem(name: str, stem: str, image_size: tuple[int, int] | None, pretrained: bool) -> str:
    """Return the stem to build, `standard` or `small`.

    Args:
        name: The backbone; only ResNets (also ResNeXt and wide ResNets) have a small stem.
        stem: The setting. `auto` is `small` for a ResNet with random weights on images of at most
            `SMALL_SIDE` pixels, and `standard` otherwise.
        image_size: Height and width of the model input in pixels; None counts as large.
        pretrained: Whether weights are given, which were trained with the standard stem.
    """
    if stem not in STEMS:
        raise BackboneError(f"unknown stem {stem!r}; expected one of {', '.join(STEMS)}")
    is_resnet = name.startswith(_RESNETS)
    if stem == "small" and not is_resnet:
        raise BackboneError(
            f"stem 'small' is for {', '.join(_RESNETS)} only, not {name}; use 'standard' or 'auto'"
        )
    if stem != "auto":
        return stem
    if not is_resnet or image_size is None or max(image_size) > SMALL_SIDE:
        return "standard"
    if pretrained:
        _log.info("%s keeps the standard stem that its weights were trained with", name)
        return "standard"
    message = "%s uses the small stem: images of at most %d px, random weights"
    _log.info(message, name, SMALL_SIDE)
    return "small"


def use_small_stem(resnet: nn.Module) -> None:
    """Replace the 7x7 convolution of stride 2 and the max-pool by a 3x3 convolution of stride 1.

    The first stage then gets the full image size instead of a quarter of it. See He et al., "Deep
    Residual Learning", section 4.2 (arXiv:1512.03385), in the form of Chen et al., "SimCLR",
    appendix B.9 (arXiv:2002.05709). The weights of the new convolution are random.
    """
    network: Any = resnet
    conv = nn.Conv2d(3, network.conv1.out_channels, kernel_size=3, stride=1, padding=1, bias=False)
    # The initialization of torchvision's ResNet.
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    network.conv1 = conv
    network.maxpool = nn.Identity()
