import sys
from pathlib import Path

import pytest
import torch

from cls_models.backbones.heads import BackboneError, get_head
from cls_models.backbones.timm_backbones import build_timm_backbone, get_timm_pretrained_input


def test_missing_timm_error_gives_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match=r'timm is missing; .*: pip install "cls-models\[timm\]"'):
        build_timm_backbone("resnet18", num_classes=5)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
def test_timm_backbone_maps_images_to_logits(name: str) -> None:
    pytest.importorskip("timm")
    backbone = build_timm_backbone(name, num_classes=7, image_size=(64, 32), dropout=0.2)
    assert backbone.eval()(torch.zeros(2, 3, 64, 32)).shape == (2, 7)
    assert len(get_head(backbone).weight) == 7


def test_timm_backbone_applies_dropout_in_training_mode() -> None:
    pytest.importorskip("timm")
    backbone = build_timm_backbone("test_vit", num_classes=7, image_size=(64, 64), dropout=0.5)
    images = torch.randn(2, 3, 64, 64)
    assert not torch.equal(backbone(images), backbone(images))


def test_timm_weights_load_except_a_head_of_another_size(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    theirs = build_timm_backbone("test_resnet", num_classes=7)
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    ours = build_timm_backbone("test_resnet", num_classes=3, weights=str(tmp_path / "w.pth"))
    saved = theirs.state_dict()
    changed = {
        name for name, value in ours.state_dict().items() if not torch.equal(value, saved[name])
    }
    assert changed == {"fc.weight", "fc.bias"}


def test_timm_init_from_matches_head_rows_by_class_name(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    theirs = build_timm_backbone("test_resnet", num_classes=2)
    (tmp_path / "checkpoints").mkdir()
    state = {f"backbone.{key}": value for key, value in theirs.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "checkpoints/best.ckpt")
    (tmp_path / "labels_mapping.json").write_text('{"class_to_idx": {"a": 0, "b": 1}}')
    ours = build_timm_backbone("test_resnet", 3, init_from=str(tmp_path), classes=["b", "c", "a"])
    assert torch.equal(get_head(ours).weight[[2, 0]], get_head(theirs).weight)


def test_unknown_timm_name_or_tag_gets_a_suggestion() -> None:
    pytest.importorskip("timm")
    with pytest.raises(
        BackboneError, match="unknown timm backbone 'resnet81'; did you mean 'resnet18'"
    ):
        build_timm_backbone("resnet81", num_classes=5)
    with pytest.raises(
        BackboneError, match=r"unknown tag 'a9_in1k' of timm backbone .*Valid names: a1_in1k, "
    ):
        build_timm_backbone("resnet18.a9_in1k", num_classes=5)


@pytest.mark.parametrize(
    ("name", "smallest"), [("vit_tiny_patch16_224", "16x16"), ("test_convnext", "32x32")]
)
def test_unsupported_image_size_is_rejected_with_the_smallest_that_works(
    name: str, smallest: str
) -> None:
    pytest.importorskip("timm")
    expected = (
        f"{name} does not support images of 10x10 pixels; the smallest square that works is "
        f"{smallest}"
    )
    with pytest.raises(BackboneError, match=expected):
        build_timm_backbone(name, num_classes=5, image_size=(10, 10))


@pytest.mark.parametrize(
    "name",
    ["deit_tiny_distilled_patch16_224", "levit_128s", "efficientformer_l1", "crossvit_tiny_240"],
)
def test_timm_network_with_two_heads_is_rejected(name: str) -> None:
    pytest.importorskip("timm")
    with pytest.raises(BackboneError, match=f"timm backbone {name} averages the logits of 2 heads"):
        build_timm_backbone(name, num_classes=5)


def test_timm_arguments_out_of_range_are_rejected() -> None:
    pytest.importorskip("timm")
    with pytest.raises(BackboneError, match="at least 2, got 1"):
        build_timm_backbone("test_resnet", num_classes=1)
    with pytest.raises(BackboneError, match="less than 1"):
        build_timm_backbone("test_resnet", num_classes=2, dropout=1.0)


def test_timm_weights_offline_raise_an_error_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm")

    def offline(*args: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(timm.models._builder, "load_pretrained", offline)
    with pytest.raises(
        BackboneError, match=r"cannot be loaded \(no network\). .* model.weights=null"
    ):
        build_timm_backbone("test_resnet", num_classes=5, weights="DEFAULT")


def test_get_timm_pretrained_input_needs_no_download() -> None:
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
