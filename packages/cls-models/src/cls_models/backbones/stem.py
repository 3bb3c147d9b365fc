"""The first layers of a ResNet, for images of ordinary and of small size."""

import logging
from typing import Any

from torch import nn

from cls_models.backbones.heads import BackboneError

STEMS = ("auto", "standard", "small")
SMALL_SIDE = 32
"""Up to this side, in pixels, `auto` takes the small stem: the standard one leaves an 8x8 map of a 32x32 image."""

_RESNETS = ("resnet", "resnext", "wide_resnet")
_log = logging.getLogger(__name__)


def choose_stem(name: str, stem: str, image_size: tuple[int, int] | None, pretrained: bool) -> str:
    """Return the stem to build, `standard` or `small`.

    Args:
        name: the backbone; only ResNets (also ResNeXt and wide ones) have a small stem.
        stem: as asked. `auto` is `small` for a ResNet from random weights on images of at most `SMALL_SIDE` pixels,
            else `standard`.
        image_size: height and width of the model's input in pixels; None is not small.
        pretrained: whether weights are given, which were learnt behind the standard stem.

    Raises:
        BackboneError: an unknown word, or `small` for a backbone that is no ResNet.
    """
    if stem not in STEMS:
        raise BackboneError(f"unknown stem {stem!r}; expected one of {', '.join(STEMS)}")
    resnet = name.startswith(_RESNETS)
    if stem == "small" and not resnet:
        raise BackboneError(
            f"stem 'small' is for {', '.join(_RESNETS)} only, not {name}; use 'standard' or 'auto'"
        )
    if stem != "auto":
        return stem
    if not resnet or image_size is None or max(image_size) > SMALL_SIDE:
        return "standard"
    if pretrained:
        _log.info(
            "%s keeps its standard stem, which its weights were learnt behind; images are small",
            name,
        )
        return "standard"
    _log.info("%s gets its small stem: images of at most %d px, random weights", name, SMALL_SIDE)
    return "small"


def use_small_stem(resnet: nn.Module) -> None:
    """Replace 7x7 stride 2 and the max-pool by one 3x3 convolution of stride 1, its weights random.

    So that the first stage sees an image at its full size instead of a quarter: He et al., *Deep Residual Learning*,
    section 4.2 (arXiv:1512.03385), in the form of Chen et al., *SimCLR*, appendix B.9 (arXiv:2002.05709).
    """
    network: Any = resnet
    conv = nn.Conv2d(3, network.conv1.out_channels, kernel_size=3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(
        conv.weight, mode="fan_out", nonlinearity="relu"
    )  # as torchvision's ResNet starts
    network.conv1 = conv
    network.maxpool = nn.Identity()
