from collections.abc import Iterator
from itertools import chain
from typing import Any

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import get_model, list_models
from torchvision.models.regnet import BlockParams

from cls_models.backbones.heads import head_name
from cls_models.backbones.layer_ids import layer_ids, weight_names

NAMES = list_models(module=torchvision.models)


@pytest.fixture(autouse=True)
def regnet_plans_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """It computes the widths of its blocks with tensors, which have no values on the meta device."""
    plan: Any = BlockParams.from_init_params

    def on_the_cpu(*args: Any, **kwargs: Any) -> Any:
        with torch.device("cpu"):
            return plan(*args, **kwargs)

    monkeypatch.setattr(BlockParams, "from_init_params", on_the_cpu)


def shape_of(name: str) -> nn.Module:
    settings = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    with torch.device("meta"):
        backbone: nn.Module = get_model(name, weights=None, **settings)
    return backbone


def layers(backbone: nn.Module) -> list[list[str]]:
    numbers = layer_ids(backbone)
    return [
        [name for name in numbers if numbers[name] == layer]
        for layer in range(max(numbers.values()) + 1)
    ]


def test_torchvision_has_its_eighty_classifiers() -> None:
    assert len(NAMES) >= 80


@pytest.mark.parametrize("name", NAMES)
def test_every_backbone_is_a_row_of_layers_from_its_stem_to_its_head(name: str) -> None:
    backbone = shape_of(name)
    found = layers(backbone)
    assert sorted(chain.from_iterable(found)) == sorted(
        name for name, _ in backbone.named_parameters()
    )
    head = {name for name in found[-1] if not name.lower().startswith("aux")}
    assert head == {
        f"{head_name(backbone)}.{part}"
        for part, _ in backbone.get_submodule(head_name(backbone)).named_parameters()
    }
    weights = weight_names(backbone)
    assert all(not weights.isdisjoint(names) for names in found)
    sizes = [sum(backbone.get_parameter(name).numel() for name in names) for names in found]
    assert 8 <= len(found) <= 110
    if name.split("_")[0] not in (
        "alexnet",
        "vgg11",
        "vgg13",
        "vgg16",
        "vgg19",
        "maxvit",
        "shufflenet",
    ):
        assert max(sizes) < 0.65 * sum(sizes), "a whole stage or body was taken for one layer"
    first = next(iter(weights_in_order(backbone, weights)))
    assert first in found[0]


def weights_in_order(backbone: nn.Module, weights: frozenset[str]) -> Iterator[str]:
    return (name for name, _ in backbone.named_parameters() if name in weights)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("resnet18", 10),
        ("resnet50", 18),
        ("vit_b_16", 14),
        ("swin_t", 17),
        ("convnext_tiny", 23),
        ("densenet121", 63),
    ],
)
def test_blocks_are_layers(name: str, count: int) -> None:
    assert len(layers(shape_of(name))) == count


def test_a_norm_belongs_to_what_it_follows() -> None:
    numbers = layer_ids(shape_of("resnet18"))
    assert numbers["bn1.weight"] == numbers["conv1.weight"] == 0
    assert numbers["layer2.0.downsample.1.bias"] == numbers["layer2.0.conv1.weight"] == 3
    numbers = layer_ids(shape_of("vgg11_bn"))
    assert numbers["features.5.weight"] == numbers["features.4.weight"] == 1


def test_embeddings_are_in_the_stem_and_the_last_norm_in_the_last_block() -> None:
    numbers = layer_ids(shape_of("vit_b_16"))
    assert {
        numbers[name] for name in ("class_token", "conv_proj.weight", "encoder.pos_embedding")
    } == {0}
    assert (
        numbers["encoder.ln.weight"]
        == numbers["encoder.layers.encoder_layer_11.mlp.0.weight"]
        == 12
    )


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_heads_train_as_the_head_does(name: str) -> None:
    numbers = layer_ids(shape_of(name))
    auxiliary = {number for name, number in numbers.items() if name.lower().startswith("aux")}
    assert auxiliary == {numbers["fc.weight"]} == {max(numbers.values())}


def test_gains_offsets_and_embeddings_are_no_weights() -> None:
    for name in ("vit_b_16", "swin_v2_t", "convnext_tiny", "maxvit_t"):
        backbone = shape_of(name)
        owners = {path: type(module).__name__ for path, module in backbone.named_modules()}
        found = {owners[weight.rpartition(".")[0]] for weight in weight_names(backbone)}
        assert found <= {
            "Linear",
            "Conv2d",
            "MultiheadAttention",
            "NonDynamicallyQuantizableLinear",
        }
        others = {parameter for parameter, _ in backbone.named_parameters()} - weight_names(
            backbone
        )
        assert all(
            parameter.endswith(
                (
                    "bias",
                    "class_token",
                    "pos_embedding",
                    "layer_scale",
                    "logit_scale",
                    "relative_position_bias_table",
                )
            )
            or backbone.get_parameter(parameter).ndim == 1
            for parameter in others
        )


def test_a_norm_over_a_whole_map_is_no_weight() -> None:
    assert weight_names(nn.Sequential(nn.Conv2d(3, 4, 3), nn.LayerNorm((4, 6, 6)))) == {"0.weight"}


def test_a_network_inside_another_is_opened() -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = get_model("resnet18", weights=None)

    with torch.device("meta"):
        assert len(layers(Wrapped())) == 10


def test_a_lone_linear_layer_is_all_head() -> None:
    assert layer_ids(nn.Linear(3, 2)) == {"weight": 0, "bias": 0}


def test_a_network_without_a_head_is_refused() -> None:
    with pytest.raises(ValueError, match="no classification layer"):
        layer_ids(nn.Sequential(nn.BatchNorm2d(3)))
