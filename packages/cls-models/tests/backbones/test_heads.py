import pytest
import torch
from torch import nn
from torchvision.models import get_model

from cls_models.backbones.heads import (
    BackboneError,
    DropoutLinear,
    find_head_name,
    get_head,
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
def test_find_head_name_returns_the_classification_layer(name: str, expected: str) -> None:
    with torch.device("meta"):
        backbone = get_model(name, num_classes=7)
    assert find_head_name(backbone) == expected
    assert len(get_head(backbone).weight) == 7


def test_find_head_name_returns_the_last_linear_layer_of_a_custom_network() -> None:
    assert find_head_name(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2))) == "2"


def test_find_head_name_rejects_a_network_without_a_head() -> None:
    with pytest.raises(BackboneError, match="Sequential has no classification layer"):
        find_head_name(nn.Sequential(nn.ReLU()))


def test_set_dropout_changes_layers_next_to_the_head_but_not_in_blocks() -> None:
    with torch.device("meta"):
        backbone = get_model("vgg11", num_classes=7)
        transformer = get_model("swin_t", num_classes=7)
    set_dropout(backbone, 0.1)
    assert [layer.p for layer in backbone.classifier if isinstance(layer, nn.Dropout)] == [0.1, 0.1]
    set_dropout(transformer, 0.1)
    assert {layer.p for layer in transformer.modules() if isinstance(layer, nn.Dropout)} == {0.0}
    assert isinstance(transformer.head, DropoutLinear)


def test_set_dropout_changes_only_training_mode_and_keeps_parameters() -> None:
    backbone = get_model("shufflenet_v2_x0_5", num_classes=4).eval()
    images = torch.randn(2, 3, 32, 32)
    state, expected = backbone.state_dict(), backbone(images)
    set_dropout(backbone, 0.5)
    assert backbone.state_dict().keys() == state.keys()
    assert find_head_name(backbone) == "fc"
    assert torch.equal(backbone(images), expected)
    get_head(backbone).train()
    assert not torch.equal(backbone(images), backbone(images))


def test_dropout_linear_keeps_the_mean() -> None:
    torch.manual_seed(0)
    layer = DropoutLinear(4, 1, bias=False, rate=0.25)
    nn.init.ones_(layer.weight)
    sums = layer(torch.ones(20_000, 4))
    assert sums.mean().item() == pytest.approx(4, abs=0.05)
    assert (sums == 0).float().mean().item() == pytest.approx(0.25**4, abs=0.005)


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_set_dropout_rejects_rates_out_of_range(rate: float) -> None:
    with pytest.raises(BackboneError, match="at least 0 and less than 1"):
        set_dropout(nn.Sequential(nn.Linear(2, 2)), rate)


def test_set_dropout_rejects_a_convolution_head() -> None:
    with pytest.raises(BackboneError, match="needs a linear head"):
        set_dropout(nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()), 0.1)


@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenet_v3_small", "squeezenet1_1", "convnext_tiny", "swin_t"]
)
def test_set_pooling_max_replaces_only_the_global_pool(name: str) -> None:
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


def test_set_pooling_average_changes_nothing() -> None:
    backbone = nn.Sequential(nn.Linear(2, 2))
    set_pooling(backbone, "average")
    assert isinstance(backbone[0], nn.Linear)


@pytest.mark.parametrize("name", ["densenet121", "vgg11", "vit_b_32", "mobilenet_v2"])
def test_set_pooling_max_rejects_a_network_without_a_global_pool(name: str) -> None:
    with torch.device("meta"):
        backbone = get_model(name, num_classes=3)
    with pytest.raises(BackboneError, match=r"pooling 'max' is not supported: .* has no layer"):
        set_pooling(backbone, "max")
