import copy

import torch

from cls_models import build_backbone
from cls_models.acceleration.memory_format import is_channels_last_faster, prepare_for_device


def test_channels_last_is_faster_on_a_cpu_and_in_mixed_precision_on_cuda() -> None:
    assert is_channels_last_faster("cpu")
    assert is_channels_last_faster("cuda", "bf16-mixed")
    assert not is_channels_last_faster("cuda")
    assert not is_channels_last_faster("mps")


def test_prepare_for_device_keeps_the_logits_on_a_cpu() -> None:
    torch.manual_seed(0)
    plain = build_backbone("resnet18", 5).eval()
    prepared = copy.deepcopy(plain)
    assert len(prepare_for_device(prepared, "cpu")) == 2
    assert prepared.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    images = torch.randn(2, 3, 48, 32)
    assert torch.allclose(prepared(images), plain(images), atol=1e-5)


def test_prepare_for_device_changes_nothing_in_float32_on_cuda() -> None:
    assert prepare_for_device(build_backbone("resnet18", 5), "cuda") == []
