from collections.abc import Iterator
from itertools import chain
from typing import Any

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import get_model, list_models
from torchvision.models.regnet import BlockParams

from cls_models.backbones.heads import find_head_name
from cls_models.backbones.layer_ids import get_layer_ids, get_weight_names

NAMES = list_models(module=torchvision.models)


@pytest.fixture(autouse=True)
def regnet_plans_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """RegNet computes block widths with tensors, which have no values on the meta device."""
    plan: Any = BlockParams.from_init_params

    def on_the_cpu(*args: Any, **kwargs: Any) -> Any:
        with torch.device("cpu"):
            return plan(*args, **kwargs)

    monkeypatch.setattr(BlockParams, "from_init_params", on_the_cpu)


def build_on_meta(name: str) -> nn.Module:
    settings = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    with torch.device("meta"):
        backbone: nn.Module = get_model(name, weights=None, **settings)
    return backbone


def layers(backbone: nn.Module) -> list[list[str]]:
    numbers = get_layer_ids(backbone)
    return [
        [name for name in numbers if numbers[name] == layer]
        for layer in range(max(numbers.values()) + 1)
    ]


def test_torchvision_has_at_least_eighty_classifiers() -> None:
    assert len(NAMES) >= 80


@pytest.mark.parametrize("name", NAMES)
def test_layer_ids_number_every_backbone_from_stem_to_head(name: str) -> None:
    backbone = build_on_meta(name)
    names_by_layer = layers(backbone)
    assert sorted(chain.from_iterable(names_by_layer)) == sorted(
        name for name, _ in backbone.named_parameters()
    )
    head = {name for name in names_by_layer[-1] if not name.lower().startswith("aux")}
    assert head == {
        f"{find_head_name(backbone)}.{part}"
        for part, _ in backbone.get_submodule(find_head_name(backbone)).named_parameters()
    }
    weights = get_weight_names(backbone)
    assert all(not weights.isdisjoint(names) for names in names_by_layer)
    sizes = [
        sum(backbone.get_parameter(name).numel() for name in names) for names in names_by_layer
    ]
    assert 8 <= len(names_by_layer) <= 110
    if name.split("_")[0] not in (
        "alexnet",
        "vgg11",
        "vgg13",
        "vgg16",
        "vgg19",
        "maxvit",
        "shufflenet",
    ):
        assert max(sizes) < 0.65 * sum(sizes), "a whole stage counts as one layer"
    first = next(iter(weights_in_order(backbone, weights)))
    assert first in names_by_layer[0]


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
def test_layer_ids_count_blocks_as_layers(name: str, count: int) -> None:
    assert len(layers(build_on_meta(name))) == count


def test_layer_ids_put_norms_into_the_layer_before_them() -> None:
    numbers = get_layer_ids(build_on_meta("resnet18"))
    assert numbers["bn1.weight"] == numbers["conv1.weight"] == 0
    assert numbers["layer2.0.downsample.1.bias"] == numbers["layer2.0.conv1.weight"] == 3
    numbers = get_layer_ids(build_on_meta("vgg11_bn"))
    assert numbers["features.5.weight"] == numbers["features.4.weight"] == 1


def test_layer_ids_put_embeddings_into_the_stem_and_the_final_norm_into_the_last_block() -> None:
    numbers = get_layer_ids(build_on_meta("vit_b_16"))
    assert {
        numbers[name] for name in ("class_token", "conv_proj.weight", "encoder.pos_embedding")
    } == {0}
    assert (
        numbers["encoder.ln.weight"]
        == numbers["encoder.layers.encoder_layer_11.mlp.0.weight"]
        == 12
    )


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_layer_ids_put_auxiliary_heads_into_the_head_layer(name: str) -> None:
    numbers = get_layer_ids(build_on_meta(name))
    auxiliary = {number for name, number in numbers.items() if name.lower().startswith("aux")}
    assert auxiliary == {numbers["fc.weight"]} == {max(numbers.values())}


def test_weight_names_exclude_norms_biases_and_embeddings() -> None:
    for name in ("vit_b_16", "swin_v2_t", "convnext_tiny", "maxvit_t"):
        backbone = build_on_meta(name)
        owners = {path: type(module).__name__ for path, module in backbone.named_modules()}
        types = {owners[weight.rpartition(".")[0]] for weight in get_weight_names(backbone)}
        assert types <= {
            "Linear",
            "Conv2d",
            "MultiheadAttention",
            "NonDynamicallyQuantizableLinear",
        }
        others = {parameter for parameter, _ in backbone.named_parameters()} - get_weight_names(
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


def test_weight_names_exclude_multidimensional_norms() -> None:
    assert get_weight_names(nn.Sequential(nn.Conv2d(3, 4, 3), nn.LayerNorm((4, 6, 6)))) == {
        "0.weight"
    }


def test_layer_ids_number_the_blocks_of_a_wrapped_network() -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = get_model("resnet18", weights=None)

    with torch.device("meta"):
        assert len(layers(Wrapped())) == 10


def test_layer_ids_treat_a_single_linear_layer_as_head() -> None:
    assert get_layer_ids(nn.Linear(3, 2)) == {"weight": 0, "bias": 0}


def test_layer_ids_reject_a_network_without_a_head() -> None:
    with pytest.raises(ValueError, match="no classification layer"):
        get_layer_ids(nn.Sequential(nn.BatchNorm2d(3)))
