import logging

import pytest
import torch
from torchvision.models import get_model

from cls_models.backbones.heads import BackboneError
from cls_models.backbones.stem import choose_stem, use_small_stem


@pytest.mark.parametrize(
    ("name", "size", "pretrained", "expected"),
    [
        ("resnet18", (32, 32), False, "small"),
        ("wide_resnet50_2", (28, 20), False, "small"),
        ("resnext50_32x4d", (32, 33), False, "standard"),
        ("resnet18", (32, 32), True, "standard"),
        ("resnet18", None, False, "standard"),
        ("convnext_tiny", (32, 32), False, "standard"),
    ],
)
def test_choose_stem_auto_is_small_for_random_resnets_on_small_images(
    name: str, size: tuple[int, int] | None, pretrained: bool, expected: str
) -> None:
    assert choose_stem(name, "auto", size, pretrained) == expected


def test_choose_stem_returns_the_explicit_setting() -> None:
    assert choose_stem("resnet18", "small", (224, 224), pretrained=True) == "small"
    assert choose_stem("resnet18", "standard", (32, 32), pretrained=False) == "standard"


def test_choose_stem_auto_logs_the_small_stem(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="cls_models"):
        choose_stem("resnet18", "auto", (32, 32), pretrained=False)
    assert "resnet18 uses the small stem: images of at most 32 px" in caplog.text


def test_choose_stem_rejects_small_for_other_networks() -> None:
    with pytest.raises(BackboneError, match="for resnet, resnext, wide_resnet only, not vgg11"):
        choose_stem("vgg11", "small", None, pretrained=False)


def test_choose_stem_rejects_an_unknown_name() -> None:
    with pytest.raises(
        BackboneError, match="unknown stem 'tiny'; expected one of auto, standard, small"
    ):
        choose_stem("resnet18", "tiny", None, pretrained=False)


def test_use_small_stem_keeps_the_full_image_size() -> None:
    backbone = get_model("resnet18", num_classes=5)
    shapes = []
    backbone.layer1.register_forward_pre_hook(lambda _, inputs: shapes.append(inputs[0].shape))
    use_small_stem(backbone)
    assert backbone(torch.randn(2, 3, 32, 24)).shape == (2, 5)
    assert shapes == [(2, 64, 32, 24)]
