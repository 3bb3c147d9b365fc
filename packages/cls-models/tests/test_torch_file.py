from pathlib import Path

import pytest
import torch

from cls_models import TorchFileError, read_torch_file
from cls_models.torch_file import get_backbone_state


def test_read_torch_file_returns_the_saved_object(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(2), "epoch": 3}, tmp_path / "file.ckpt")
    content = read_torch_file(tmp_path / "file.ckpt")
    assert torch.equal(content["weight"], torch.ones(2))
    assert content["epoch"] == 3


def test_read_torch_file_names_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(TorchFileError, match=r"file\.ckpt: no such file"):
        read_torch_file(tmp_path / "file.ckpt")


@pytest.mark.parametrize("content", [b"", b"not a PyTorch file"])
def test_read_torch_file_names_a_damaged_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file.ckpt").write_bytes(content)
    with pytest.raises(TorchFileError, match=r"file\.ckpt: not a readable PyTorch file"):
        read_torch_file(tmp_path / "file.ckpt")


def test_get_backbone_state_removes_the_prefix_and_other_tensors() -> None:
    state = {"backbone.fc.weight": torch.ones(2), "loss.weight": torch.zeros(2)}
    assert get_backbone_state({"state_dict": state}, "file.ckpt").keys() == {"fc.weight"}


@pytest.mark.parametrize("content", [[1], {}, {"state_dict": {"fc.weight": torch.ones(2)}}])
def test_get_backbone_state_rejects_other_files(content: object) -> None:
    with pytest.raises(TorchFileError, match=r"file\.ckpt: not a checkpoint of"):
        get_backbone_state(content, "file.ckpt")
