import sys
from pathlib import Path

import pytest
import torch

from cls_models.backbones.heads import BackboneError, head
from cls_models.backbones.timm_backbones import build_timm_backbone, get_timm_pretrained_input


def test_without_timm_the_error_holds_the_line_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match=r'timm is missing; .*: pip install "cls-models\[timm\]"'):
        build_timm_backbone("resnet18", num_classes=5)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
def test_a_timm_backbone_maps_images_to_logits(name: str) -> None:
    pytest.importorskip("timm")
    backbone = build_timm_backbone(name, num_classes=7, image_size=(64, 32), dropout=0.2)
    assert backbone.eval()(torch.zeros(2, 3, 64, 32)).shape == (2, 7)
    assert len(head(backbone).weight) == 7


def test_dropout_drops_features_while_training() -> None:
    pytest.importorskip("timm")
    backbone = build_timm_backbone("test_vit", num_classes=7, image_size=(64, 64), dropout=0.5)
    images = torch.randn(2, 3, 64, 64)
    assert not torch.equal(backbone(images), backbone(images))


def test_weights_from_a_file_are_loaded_but_for_a_head_of_another_size(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    theirs = build_timm_backbone("test_resnet", num_classes=7)
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    ours = build_timm_backbone("test_resnet", num_classes=3, weights=str(tmp_path / "w.pth"))
    kept = theirs.state_dict()
    changed = {
        name for name, value in ours.state_dict().items() if not torch.equal(value, kept[name])
    }
    assert changed == {"fc.weight", "fc.bias"}


def test_rows_of_the_head_follow_their_classes_from_an_earlier_run(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    theirs = build_timm_backbone("test_resnet", num_classes=2)
    (tmp_path / "checkpoints").mkdir()
    state = {f"backbone.{key}": value for key, value in theirs.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "checkpoints/best.ckpt")
    (tmp_path / "labels_mapping.json").write_text('{"class_to_idx": {"a": 0, "b": 1}}')
    ours = build_timm_backbone("test_resnet", 3, init_from=str(tmp_path), classes=["b", "c", "a"])
    assert torch.equal(head(ours).weight[[2, 0]], head(theirs).weight)


def test_an_unknown_name_or_tag_is_answered_with_the_nearest() -> None:
    pytest.importorskip("timm")
    with pytest.raises(
        BackboneError, match="unknown timm backbone 'resnet81'; did you mean 'resnet18'"
    ):
        build_timm_backbone("resnet81", num_classes=5)
    with pytest.raises(
        BackboneError, match=r"unknown tag 'a9_in1k' of timm backbone .*; known are a1_in1k, "
    ):
        build_timm_backbone("resnet18.a9_in1k", num_classes=5)


@pytest.mark.parametrize(
    ("name", "smallest"), [("vit_tiny_patch16_224", "16x16"), ("test_convnext", "32x32")]
)
def test_an_image_that_the_network_cannot_take_is_refused(name: str, smallest: str) -> None:
    pytest.importorskip("timm")
    expected = (
        f"{name} cannot take images of 10x10 pixels; the smallest square that works is {smallest}"
    )
    with pytest.raises(BackboneError, match=expected):
        build_timm_backbone(name, num_classes=5, image_size=(10, 10))


@pytest.mark.parametrize(
    "name",
    ["deit_tiny_distilled_patch16_224", "levit_128s", "efficientformer_l1", "crossvit_tiny_240"],
)
def test_a_network_of_two_heads_is_refused(name: str) -> None:
    pytest.importorskip("timm")
    with pytest.raises(
        BackboneError, match=f"timm backbone {name} has 2 heads whose logits it averages"
    ):
        build_timm_backbone(name, num_classes=5)


def test_fewer_than_two_classes_and_impossible_rates_are_refused() -> None:
    pytest.importorskip("timm")
    with pytest.raises(BackboneError, match="at least 2, got 1"):
        build_timm_backbone("test_resnet", num_classes=1)
    with pytest.raises(BackboneError, match="less than 1"):
        build_timm_backbone("test_resnet", num_classes=2, dropout=1.0)


def test_weights_that_cannot_be_had_end_in_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm")

    def offline(*args: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(timm.models._builder, "load_pretrained", offline)
    with pytest.raises(
        BackboneError, match=r"could not be had \(no network\). .* model.weights=null"
    ):
        build_timm_backbone("test_resnet", num_classes=5, weights="DEFAULT")


def test_the_input_that_weights_expect_is_known_without_a_download() -> None:
    pytest.importorskip("timm")
    assert get_timm_pretrained_input("resnet18", None) is None
    expected = get_timm_pretrained_input("vit_tiny_patch16_224", "DEFAULT")
    assert expected is not None
    assert (expected.mean, expected.size, expected.resize_size) == (
        (0.5, 0.5, 0.5),
        (224, 224),
        248,
    )
    assert expected.interpolation == "bicubic"
