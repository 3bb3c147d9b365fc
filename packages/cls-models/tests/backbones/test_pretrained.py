import logging
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from torch import nn
from torchvision.models import get_model, get_model_weights
from torchvision.models.vision_transformer import interpolate_embeddings

from cls_models import BackboneError, build_backbone
from cls_models.backbones.pretrained import (
    PretrainedInput,
    find_published_weights,
    get_pretrained_input,
)


def assert_same_logits(ours: nn.Module, theirs: nn.Module, side: int = 64) -> None:
    images = torch.randn(2, 3, side, side)
    with torch.inference_mode():
        assert torch.equal(ours.eval()(images), theirs.eval()(images))


@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenet_v3_small", "regnet_y_400mf", "squeezenet1_1", "swin_t"]
)
def test_weights_from_a_file_give_the_logits_of_torchvision(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    theirs = get_model(name, weights=None, num_classes=5)
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    assert_same_logits(build_backbone(name, num_classes=5, weights=str(tmp_path / "w.pth")), theirs)


def test_weights_from_a_file_give_the_features_of_torchvision(tmp_path: Path) -> None:
    theirs = get_model("resnet18", weights=None)
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    ours: Any = build_backbone("resnet18", num_classes=5, weights=str(tmp_path / "w.pth"))
    ours.fc = theirs.fc = nn.Identity()
    assert_same_logits(ours, theirs)


def test_weights_with_auxiliary_heads_load_without_them(tmp_path: Path) -> None:
    """Published weights of GoogLeNet also need `transform_input`."""
    options = {"init_weights": True, "transform_input": True}
    theirs = get_model("googlenet", weights=None, num_classes=5, **options)
    assert any(name.startswith("aux1.") for name in theirs.state_dict())
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    assert_same_logits(
        build_backbone("googlenet", num_classes=5, weights=str(tmp_path / "w.pth")), theirs
    )


def test_weights_with_old_densenet_names_load(tmp_path: Path) -> None:
    theirs = get_model("densenet121", weights=None, num_classes=5)
    old_names = {}
    for name, value in theirs.state_dict().items():
        for part in ("norm", "conv"):
            name = name.replace(f".{part}1.", f".{part}.1.").replace(f".{part}2.", f".{part}.2.")
        old_names[name] = value
    assert "features.denseblock1.denselayer1.norm.1.weight" in old_names
    torch.save(old_names, tmp_path / "w.pth")
    assert_same_logits(
        build_backbone("densenet121", num_classes=5, weights=str(tmp_path / "w.pth")), theirs
    )


@pytest.mark.parametrize("plain", [True, False])
def test_mnasnet_weights_load_with_and_without_a_version(tmp_path: Path, plain: bool) -> None:
    theirs = get_model("mnasnet0_5", weights=None, num_classes=5)
    state = theirs.state_dict()
    torch.save(dict(state) if plain else state, tmp_path / "w.pth")
    assert_same_logits(
        build_backbone("mnasnet0_5", num_classes=5, weights=str(tmp_path / "w.pth")), theirs
    )


def test_position_embeddings_are_interpolated_like_torchvision(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = get_model("vit_b_32", weights=None, num_classes=5, image_size=128).state_dict()
    torch.save(state, tmp_path / "w.pth")
    ours = build_backbone(
        "vit_b_32", num_classes=5, weights=str(tmp_path / "w.pth"), image_size=(64, 64)
    )
    theirs = get_model("vit_b_32", weights=None, num_classes=5, image_size=64)
    theirs.load_state_dict(interpolate_embeddings(64, 32, state))
    assert_same_logits(ours, theirs)


def test_head_with_another_number_of_classes_stays_random(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = get_model("resnet18", weights=None, num_classes=1000)
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    with caplog.at_level(logging.INFO, logger="cls_models"):
        ours: Any = build_backbone("resnet18", num_classes=5, weights=str(tmp_path / "w.pth"))
    assert ours.fc.out_features == 5
    assert torch.equal(ours.layer4[0].conv1.weight, theirs.layer4[0].conv1.weight)
    expected = "have a head for 1000 classes, this network one for 5: the head stays random"
    assert expected in caplog.text


def test_small_stem_stays_random_when_weights_have_the_standard_stem(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = get_model("resnet18", weights=None, num_classes=5)
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    with caplog.at_level(logging.INFO, logger="cls_models"):
        ours: Any = build_backbone(
            "resnet18", num_classes=5, weights=str(tmp_path / "w.pth"), stem="small"
        )
    assert ours.conv1.weight.shape == (64, 3, 3, 3)
    assert torch.equal(ours.layer1[0].conv1.weight, theirs.layer1[0].conv1.weight)
    assert "this network the small one: conv1 stays random" in caplog.text


def test_small_stem_loads_from_weights_with_a_small_stem(tmp_path: Path) -> None:
    theirs = build_backbone("resnet18", num_classes=5, stem="small")
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    ours = build_backbone("resnet18", num_classes=5, weights=str(tmp_path / "w.pth"), stem="small")
    assert_same_logits(ours, theirs, side=32)


def test_weights_without_batch_counters_load(tmp_path: Path) -> None:
    """torchvision's older files have none."""
    theirs = get_model("resnet18", weights=None, num_classes=5)
    state = {
        name: value
        for name, value in theirs.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    assert len(state) == 102
    torch.save(state, tmp_path / "w.pth")
    assert_same_logits(
        build_backbone("resnet18", num_classes=5, weights=str(tmp_path / "w.pth")), theirs
    )


def test_weights_of_another_network_are_rejected(tmp_path: Path) -> None:
    torch.save(get_model("resnet34", weights=None).state_dict(), tmp_path / "w.pth")
    with pytest.raises(
        BackboneError, match="belong to another network: 0 tensors missing, 96 unknown"
    ):
        build_backbone("resnet18", num_classes=5, weights=str(tmp_path / "w.pth"))


def test_head_with_another_number_of_features_is_rejected(tmp_path: Path) -> None:
    state = get_model("resnet18", weights=None, num_classes=7).state_dict()
    state["fc.weight"] = torch.zeros(7, 100)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(BackboneError, match=r"1 of another shape \(such as \['fc.weight'\]\)"):
        build_backbone("resnet18", num_classes=5, weights=str(tmp_path / "w.pth"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_with_nonfinite_values_are_rejected(tmp_path: Path, value: float) -> None:
    state = get_model("resnet18", weights=None, num_classes=5).state_dict()
    state["layer2.0.conv1.weight"][3, 2, 1, 0] = value
    torch.save(state, tmp_path / "w.pth")
    expected = (
        r"weights '.*w\.pth' are damaged.*: 1 tensors hold .* not finite "
        r"\(such as \['layer2.0.conv1.weight'\]\)"
    )
    with pytest.raises(BackboneError, match=expected):
        build_backbone("resnet18", num_classes=5, weights=str(tmp_path / "w.pth"))


@pytest.mark.parametrize("content", [b"", b"not a state dict"])
def test_damaged_weights_file_is_rejected(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(
        BackboneError, match=r"cannot load weights: .*w.pth: not a readable PyTorch file"
    ):
        build_backbone("resnet18", num_classes=5, weights=str(tmp_path / "w.pth"))


def test_file_without_a_state_dict_is_rejected(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "w.pth")
    with pytest.raises(BackboneError, match="expected a state dict"):
        build_backbone("resnet18", num_classes=5, weights=str(tmp_path / "w.pth"))


def test_missing_weights_file_is_rejected() -> None:
    with pytest.raises(BackboneError, match="no such file; expected null, DEFAULT, or the path"):
        build_backbone("resnet18", num_classes=5, weights="nowhere.pth")


def test_unknown_weights_name_gets_a_suggestion() -> None:
    expected = (
        r"unknown weights 'imagenet1k_v3' for resnet50; did you mean 'IMAGENET1K_V[12]'\? "
        r"Valid names: DEFAULT, IMAGENET1K_V1, "
    )
    with pytest.raises(BackboneError, match=expected):
        build_backbone("resnet50", num_classes=5, weights="imagenet1k_v3")


def test_find_published_weights_accepts_names_with_and_without_the_enum() -> None:
    v1 = get_model_weights("resnet50")["IMAGENET1K_V1"]
    assert find_published_weights("resnet50", "IMAGENET1K_V1") is v1
    assert find_published_weights("resnet50", "ResNet50_Weights.IMAGENET1K_V1") is v1
    assert find_published_weights("resnet50", "DEFAULT") is not v1
    assert find_published_weights("resnet50", "folder/file") is None


def test_get_pretrained_input_returns_the_transforms_of_the_weights() -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    assert get_pretrained_input("resnet18", None) is None
    assert get_pretrained_input("resnet18", "DEFAULT") == PretrainedInput(
        mean, std, (224, 224), 256, "bilinear"
    )
    assert get_pretrained_input("resnet50", "DEFAULT") == PretrainedInput(
        mean, std, (224, 224), 232, "bilinear"
    )
    swag = get_pretrained_input("vit_b_16", "IMAGENET1K_SWAG_E2E_V1")
    assert swag == PretrainedInput(mean, std, (384, 384), 384, "bicubic")
    assert get_pretrained_input("resnet50", "some/file.pth") == get_pretrained_input(
        "resnet50", "DEFAULT"
    )


def test_default_weights_offline_raise_an_error_with_advice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", offline)
    monkeypatch.setattr("torch.hub.urlopen", offline)
    with pytest.raises(BackboneError) as caught:
        build_backbone("resnet18", num_classes=5, weights="DEFAULT")
    message = str(caught.value)
    assert "model.weights=null" in message
    assert f"save it as {tmp_path}/hub/checkpoints/resnet18-f37072fd.pth" in message


def test_default_weights_are_read_from_the_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Runs torchvision's loading code on a file at the path of the download."""
    theirs = get_model("resnet18", weights=None)
    torch.save(theirs.state_dict(), cached_resnet18(monkeypatch, tmp_path))
    ours: Any = build_backbone("resnet18", num_classes=5, weights="DEFAULT")
    assert torch.equal(ours.conv1.weight, theirs.conv1.weight)


def test_damaged_download_is_rejected(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cached_resnet18(monkeypatch, tmp_path).write_bytes(b"not a PyTorch file")
    with pytest.raises(
        BackboneError, match=r"is damaged (.|\n)*; delete .*resnet18-f37072fd.pth and try again"
    ):
        build_backbone("resnet18", num_classes=5, weights="DEFAULT")


def cached_resnet18(monkeypatch: pytest.MonkeyPatch, home: Path) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(home))
    cached = home / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    cached.parent.mkdir(parents=True)
    return cached


class Payload:
    """An object whose unpickling creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.faults
def test_weights_with_a_pickled_payload_run_no_code(tmp_path: Path) -> None:
    marker, path = tmp_path / "marker", tmp_path / "w.pth"
    torch.save({"conv1.weight": Payload(marker)}, path)
    for source in ({"weights": str(path)}, {"init_from": str(path)}):
        with pytest.raises(BackboneError, match=r"w\.pth"):
            build_backbone("resnet18", num_classes=2, classes=["a", "b"], **source)
    assert not marker.exists()
