from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torchvision.models import get_model

from cls_models import BACKBONES, BackboneError, build_backbone


@pytest.mark.parametrize("name", BACKBONES)
def test_a_backbone_maps_images_to_logits(name: str) -> None:
    backbone = build_backbone(name, num_classes=7).eval()
    assert backbone(torch.zeros(2, 3, 64, 64)).shape == (2, 7)


def test_weights_from_a_file_give_torchvisions_own_answers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = get_model("resnet18", weights=None, num_classes=5).eval()
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    ours = build_backbone("resnet18", num_classes=5, weights=str(tmp_path / "w.pth")).eval()
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(ours(images), theirs(images))


def test_a_head_of_another_size_stays_random_and_the_rest_is_loaded(tmp_path: Path) -> None:
    theirs = get_model("resnet18", weights=None, num_classes=1000)
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    ours = build_backbone("resnet18", num_classes=5, weights=str(tmp_path / "w.pth"))
    assert ours.fc.out_features == 5
    assert torch.equal(ours.layer4[0].conv1.weight, theirs.layer4[0].conv1.weight)


def test_weights_without_batch_counters_are_loaded(tmp_path: Path) -> None:
    """As torchvision's older files are."""
    theirs = get_model("resnet18", weights=None, num_classes=5).eval()
    state = {name: value for name, value in theirs.state_dict().items() if not name.endswith("num_batches_tracked")}
    assert len(state) == 102
    torch.save(state, tmp_path / "w.pth")
    ours = build_backbone("resnet18", num_classes=5, weights=str(tmp_path / "w.pth")).eval()
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(ours(images), theirs(images))


def test_a_damaged_download_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cached = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"a captive portal's page")
    with pytest.raises(BackboneError, match=r"is damaged (.|\n)*; delete .*resnet18-f37072fd.pth and repeat"):
        build_backbone("resnet18", num_classes=5, weights="DEFAULT")


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(BackboneError, match="unknown backbone 'resnet81'; did you mean 'resnet18'"):
        build_backbone("resnet81", num_classes=5)


def test_fewer_than_two_classes_are_refused() -> None:
    with pytest.raises(BackboneError, match="at least 2, got 1"):
        build_backbone("resnet18", num_classes=1)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save(get_model("resnet34", weights=None).state_dict(), tmp_path / "w.pth")
    with pytest.raises(BackboneError, match="belong to another network: 0 tensors missing, 96 unknown"):
        build_backbone("resnet18", num_classes=5, weights=str(tmp_path / "w.pth"))


@pytest.mark.parametrize("content", [b"", b"not a state dict"])
def test_a_damaged_weights_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(BackboneError, match="not a readable state dict"):
        build_backbone("resnet18", num_classes=5, weights=str(tmp_path / "w.pth"))


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "w.pth")
    with pytest.raises(BackboneError, match="expected a state dict"):
        build_backbone("resnet18", num_classes=5, weights=str(tmp_path / "w.pth"))


def test_a_missing_weights_file_is_refused() -> None:
    with pytest.raises(BackboneError, match="no such file; expected null, DEFAULT, or the path"):
        build_backbone("resnet18", num_classes=5, weights="nowhere.pth")


def test_default_weights_offline_end_in_advice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", offline)
    monkeypatch.setattr("torch.hub.urlopen", offline)
    with pytest.raises(BackboneError) as caught:
        build_backbone("resnet18", num_classes=5, weights="DEFAULT")
    message = str(caught.value)
    assert "model.weights=null" in message
    assert f"put it at {tmp_path}/hub/checkpoints/resnet18-f37072fd.pth" in message


def test_default_weights_are_read_from_the_cache_when_they_lie_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The real loading code, on a file in the place that the download would fill."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cached = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    cached.parent.mkdir(parents=True)
    theirs = get_model("resnet18", weights=None)
    torch.save(theirs.state_dict(), cached)
    ours = build_backbone("resnet18", num_classes=5, weights="DEFAULT")
    assert torch.equal(ours.conv1.weight, theirs.conv1.weight)
