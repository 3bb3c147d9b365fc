import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.models import get_model

from cls_models import BackboneError, build_backbone
from cls_models.backbones.heads import DropoutLinear, get_head
from cls_models.backbones.torchvision_backbones import accepts_size


@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenet_v3_small", "squeezenet1_1", "shufflenet_v2_x0_5"]
)
def test_build_backbone_maps_images_to_logits(name: str) -> None:
    backbone = build_backbone(name, num_classes=7, image_size=(64, 48)).eval()
    assert backbone(torch.zeros(2, 3, 64, 48)).shape == (2, 7)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_networks_with_auxiliary_outputs_return_plain_logits_in_training_mode(name: str) -> None:
    backbone = build_backbone(name, num_classes=3).train()
    assert backbone(torch.randn(2, 3, 107, 107)).shape == (2, 3)


def test_unknown_backbone_gets_a_suggestion() -> None:
    with pytest.raises(BackboneError, match="unknown backbone 'resnet81'; did you mean 'resnet18'"):
        build_backbone("resnet81", num_classes=5)
    with pytest.raises(BackboneError, match="'convnext_tiny'"):
        build_backbone("convnext-tiny", num_classes=5)


def test_build_backbone_rejects_fewer_than_two_classes() -> None:
    with pytest.raises(BackboneError, match="at least 2, got 1"):
        build_backbone("resnet18", num_classes=1)


@pytest.mark.parametrize(
    ("name", "size", "smallest"),
    [
        ("alexnet", (32, 32), "63x63"),
        ("squeezenet1_1", (17, 16), "17x17"),
        ("densenet121", (28, 28), "29x29"),
        ("vit_b_32", (31, 31), "32x32"),
        ("maxvit_t", (64, 64), "221x221"),
    ],
)
def test_small_image_size_is_rejected_with_the_smallest_that_works(
    name: str, size: tuple[int, int], smallest: str
) -> None:
    expected = (
        f"{name} does not support images of {size[0]}x{size[1]} pixels; the smallest square that "
        f"works is {smallest}"
    )
    with pytest.raises(BackboneError, match=f"{expected}. Change preprocessing.size"):
        build_backbone(name, num_classes=5, image_size=size)


def test_unsupported_image_size_error_names_the_next_larger_one() -> None:
    with pytest.raises(
        BackboneError, match="the smallest square that works is 16x16, the next larger one 112x112"
    ):
        build_backbone("vit_b_16", num_classes=5, image_size=(100, 100))


def test_vision_transformer_rejects_images_that_are_not_square() -> None:
    with pytest.raises(
        BackboneError,
        match=r"does not support images of 64x32 pixels; .* the next larger one 64x64",
    ):
        build_backbone("vit_b_32", num_classes=5, image_size=(64, 32))


@pytest.mark.parametrize("size", [(0, 5), (5,), (1, 2, 3)])
def test_image_size_must_be_height_and_width(size: tuple[int, ...]) -> None:
    with pytest.raises(BackboneError, match="a height and a width"):
        build_backbone("resnet18", num_classes=5, image_size=size)


SQUEEZENET = build_backbone("squeezenet1_1", num_classes=2)


@settings(max_examples=30, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40))
def test_accepts_size_agrees_with_a_forward_pass(height: int, width: int) -> None:
    try:
        runs = bool(SQUEEZENET(torch.zeros(1, 3, height, width)).isfinite().all())
    except RuntimeError:
        runs = False
    assert accepts_size(SQUEEZENET, (height, width)) == runs


def test_accepts_size_does_not_change_the_network() -> None:
    backbone = build_backbone("resnet18", num_classes=5)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    assert accepts_size(backbone, (64, 64))
    assert backbone.training
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_build_backbone_draws_the_same_weights_at_every_image_size() -> None:
    def first(size: tuple[int, int] | None) -> torch.Tensor:
        torch.manual_seed(3)
        return get_head(build_backbone("resnet18", num_classes=5, image_size=size)).weight

    assert torch.equal(first(None), first((64, 96)))


def test_build_backbone_applies_stem_dropout_and_pooling() -> None:
    backbone = build_backbone(
        "resnet18", num_classes=5, image_size=(32, 32), dropout=0.3, pooling="max"
    )
    assert vars(backbone)["stem_kind"] == "small"
    assert isinstance(backbone.avgpool, nn.AdaptiveMaxPool2d)
    assert isinstance(get_head(backbone), DropoutLinear)


@pytest.mark.parametrize(
    ("option", "value"), [("stem", "tiny"), ("pooling", "sum"), ("dropout", 1.0)]
)
def test_build_backbone_rejects_unknown_options(option: str, value: object) -> None:
    with pytest.raises(BackboneError, match=option):
        build_backbone("resnet18", num_classes=5, **{option: value})  # type: ignore[arg-type]


def test_init_from_loads_weights_by_class_name(tmp_path: Path) -> None:
    theirs = get_model("shufflenet_v2_x0_5", num_classes=3)
    checkpoint = {
        "state_dict": {f"backbone.{name}": value for name, value in theirs.state_dict().items()}
    }
    torch.save(checkpoint, tmp_path / "best.ckpt")
    (tmp_path / "labels_mapping.json").write_text(
        json.dumps({"class_to_idx": {"a": 0, "b": 1, "c": 2}})
    )
    ours = build_backbone(
        "shufflenet_v2_x0_5",
        num_classes=2,
        init_from=str(tmp_path / "best.ckpt"),
        classes=["c", "d"],
        dropout=0.1,
    )
    assert torch.equal(ours.conv1[0].weight, theirs.conv1[0].weight)
    assert torch.equal(get_head(ours).weight[0], theirs.fc.weight[2])


def test_init_from_cannot_be_combined_with_weights() -> None:
    with pytest.raises(BackboneError, match="replaces all weights"):
        build_backbone(
            "resnet18", num_classes=2, weights="DEFAULT", init_from="runs/x", classes=["a", "b"]
        )


@pytest.mark.parametrize("classes", [None, ["a"]])
def test_init_from_needs_the_names_of_all_classes(classes: list[str] | None) -> None:
    with pytest.raises(BackboneError, match="names of the 2 classes"):
        build_backbone("resnet18", num_classes=2, init_from="runs/x", classes=classes)
