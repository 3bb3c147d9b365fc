import pytest
import torch
from torch import nn
from torchvision.models import get_model

from cls_models.backbones.heads import (
    BackboneError,
    DropoutLinear,
    head,
    head_name,
    set_dropout,
    set_pooling,
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18", "fc"),
        ("mobilenet_v3_small", "classifier.3"),
        ("densenet121", "classifier"),
        ("squeezenet1_1", "classifier.1"),
        ("swin_t", "head"),
        ("vit_b_32", "heads.head"),
    ],
)
def test_the_head_of_a_family_is_found(name: str, expected: str) -> None:
    with torch.device("meta"):
        backbone = get_model(name, num_classes=7)
    assert head_name(backbone) == expected
    assert len(head(backbone).weight) == 7


def test_a_network_of_ones_own_has_a_head_too() -> None:
    assert head_name(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2))) == "2"


def test_a_network_without_a_head_is_refused() -> None:
    with pytest.raises(BackboneError, match="Sequential has no classification layer"):
        head_name(nn.Sequential(nn.ReLU()))


def test_dropout_beside_the_head_gets_the_rate_and_dropout_in_blocks_keeps_its_own() -> None:
    with torch.device("meta"):
        backbone = get_model("vgg11", num_classes=7)
        transformer = get_model("swin_t", num_classes=7)
    set_dropout(backbone, 0.1)
    assert [layer.p for layer in backbone.classifier if isinstance(layer, nn.Dropout)] == [0.1, 0.1]
    set_dropout(transformer, 0.1)
    assert {layer.p for layer in transformer.modules() if isinstance(layer, nn.Dropout)} == {0.0}
    assert isinstance(transformer.head, DropoutLinear)


def test_dropout_changes_training_alone_and_no_tensor() -> None:
    backbone = get_model("shufflenet_v2_x0_5", num_classes=4).eval()
    images = torch.randn(2, 3, 32, 32)
    state, expected = backbone.state_dict(), backbone(images)
    set_dropout(backbone, 0.5)
    assert backbone.state_dict().keys() == state.keys()
    assert head_name(backbone) == "fc"
    assert torch.equal(backbone(images), expected)
    head(backbone).train()
    assert not torch.equal(backbone(images), backbone(images))


def test_dropped_features_keep_their_mean() -> None:
    torch.manual_seed(0)
    layer = DropoutLinear(4, 1, bias=False, rate=0.25)
    nn.init.ones_(layer.weight)
    sums = layer(torch.ones(20_000, 4))
    assert sums.mean().item() == pytest.approx(4, abs=0.05)
    assert (sums == 0).float().mean().item() == pytest.approx(0.25**4, abs=0.005)


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_an_impossible_rate_is_refused(rate: float) -> None:
    with pytest.raises(BackboneError, match="at least 0 and less than 1"):
        set_dropout(nn.Sequential(nn.Linear(2, 2)), rate)


def test_dropout_before_a_bare_convolution_is_refused() -> None:
    with pytest.raises(BackboneError, match="needs a linear head"):
        set_dropout(nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()), 0.1)


@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenet_v3_small", "squeezenet1_1", "convnext_tiny", "swin_t"]
)
def test_max_pooling_replaces_the_last_pool_alone(name: str) -> None:
    backbone = get_model(name, num_classes=3).eval()
    averages = sum(isinstance(module, nn.AdaptiveAvgPool2d) for module in backbone.modules())
    images = torch.randn(2, 3, 64, 64)
    averaged = backbone(images)
    set_pooling(backbone, "max")
    assert (
        sum(isinstance(module, nn.AdaptiveAvgPool2d) for module in backbone.modules())
        == averages - 1
    )
    assert backbone(images).shape == (2, 3)
    assert not torch.equal(backbone(images), averaged)


def test_average_pooling_changes_nothing() -> None:
    backbone = nn.Sequential(nn.Linear(2, 2))
    set_pooling(backbone, "average")
    assert isinstance(backbone[0], nn.Linear)


@pytest.mark.parametrize("name", ["densenet121", "vgg11", "vit_b_32", "mobilenet_v2"])
def test_max_pooling_where_there_is_no_pool_to_replace_is_refused(name: str) -> None:
    with torch.device("meta"):
        backbone = get_model(name, num_classes=3)
    with pytest.raises(BackboneError, match=r"pooling 'max' cannot be had: .* has no layer"):
        set_pooling(backbone, "max")
