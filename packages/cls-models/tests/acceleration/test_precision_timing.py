import time

import pytest
import torch
from torch import Tensor, nn

from cls_models import build_backbone
from cls_models.acceleration.precision_timing import measure_slowdown


class WaitsInBfloat16(nn.Module):
    """A network that waits under autocast."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * 8 * 8, 2)

    def forward(self, images: Tensor) -> Tensor:
        if torch.is_autocast_enabled("cpu"):
            time.sleep(0.2)
        logits: Tensor = self.layer(images.flatten(1))
        return logits


def test_slowdown_is_measured() -> None:
    assert measure_slowdown(WaitsInBfloat16(), (8, 8), "bf16-mixed") > 2


def test_float32_has_no_slowdown() -> None:
    assert measure_slowdown(nn.Identity(), (8, 8), "32-true") == 1


@pytest.mark.parametrize("is_training", [True, False])
def test_measuring_changes_nothing(is_training: bool) -> None:
    network = build_backbone("resnet18", num_classes=3, image_size=(32, 32))
    network.train(is_training)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    random_state = torch.get_rng_state()
    assert measure_slowdown(network, (32, 32), "bf16-mixed") > 0
    assert all(torch.equal(before[name], each) for name, each in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(parameter.grad is None for parameter in network.parameters())
    assert network.training is is_training
