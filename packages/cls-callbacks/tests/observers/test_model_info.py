import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from cls_callbacks import ModelInfoWriter
from cls_callbacks.observers.model_info import measure_model


def test_model_info_is_written_and_logged_when_fit_starts(
    module: Any, data: Any, make_trainer: Any, tmp_path: Path, log_messages: list[str]
) -> None:
    module.net[0].requires_grad_(False)
    make_trainer(ModelInfoWriter("net"), max_epochs=1).fit(module, datamodule=data)
    written = json.loads((tmp_path / "run/model_info.json").read_text())
    convolution, norm, linear = 4 * 3 * 9 + 4, 8, 784 * 3 + 3
    assert written["image"] == [16, 16]
    assert written["parameters"] == convolution + norm + linear
    assert written["trainable"] == norm + linear
    assert written["weights_mb"] == pytest.approx(written["parameters"] * 4 / 1e6)
    assert written["flops"] == 2 * (14 * 14 * 4 * 3 * 9 + 784 * 3)
    assert 0 < written["latency_ms"] < 1000
    assert (written["device"], written["threads"]) == ("cpu", torch.get_num_threads())
    line = "model: 2,475 parameters (2,363 trainable), 0.0 MB; one 16x16 px image takes"
    assert sum(message.startswith(line) for message in log_messages) == 1


def test_model_info_does_not_change_the_trained_weights(
    new_module: Any, data: Any, make_trainer: Any
) -> None:
    weights = []
    for callbacks in ([], [ModelInfoWriter("net")]):
        module = new_module()
        module.net.insert(4, nn.Dropout(0.5))  # its random numbers affect the weights
        torch.manual_seed(3)
        make_trainer(*callbacks, max_epochs=1).fit(module, datamodule=data)
        weights.append(module.state_dict())
    assert all(torch.equal(weights[0][name], tensor) for name, tensor in weights[1].items())


class RandomNoise(nn.Module):
    """Add random numbers, in evaluation mode too."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images + torch.rand_like(images)


def test_measuring_restores_modes_weights_and_random_state() -> None:
    network = nn.Sequential(
        RandomNoise(), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.BatchNorm2d(4))
    )
    network.train()
    network[2].eval()  # like a frozen layer
    modes = [submodule.training for submodule in network.modules()]
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state = torch.get_rng_state()
    measure_model(network, (8, 8))
    assert [submodule.training for submodule in network.modules()] == modes
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(
        parameter.grad is None and not parameter.is_inference()
        for parameter in network.parameters()
    )
    assert torch.is_grad_enabled()
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_measuring_restores_the_random_state_of_the_gpu() -> None:
    network = nn.Sequential(RandomNoise(), nn.Conv2d(3, 4, 3)).cuda()
    state = torch.cuda.get_rng_state()
    info = measure_model(network, (8, 8))
    assert torch.equal(torch.cuda.get_rng_state(), state)
    assert info.device == torch.cuda.get_device_name()


def test_measuring_restores_modes_after_an_error() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(7, 2)).train()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        measure_model(network, (8, 8))
    assert all(submodule.training for submodule in network.modules())
    assert torch.backends.mha.get_fastpath_enabled()


class Attention(nn.Module):
    """Attention over the pixels, which evaluation mode would run as one fused operation."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(3, 1, batch_first=True)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = images.flatten(2).transpose(1, 2)
        attended: torch.Tensor = self.attention(tokens, tokens, tokens, need_weights=False)[0]
        return attended


def test_flops_include_attention() -> None:
    tokens, width = 4 * 4, 3
    expected = 2 * (
        tokens * width * 3 * width + 2 * tokens * tokens * width + tokens * width * width
    )
    assert measure_model(Attention(), (4, 4)).flops == expected


def test_compiled_network_is_measured_uncompiled() -> None:
    def refuse(*_: Any) -> Any:
        raise AssertionError("the network was compiled")

    network = nn.Sequential(nn.Conv2d(3, 4, 3))
    flops = measure_model(network, (8, 8)).flops
    network.compile(backend=refuse)
    assert measure_model(network, (8, 8)).flops == flops
    compiled = torch.compile(nn.Sequential(nn.Conv2d(3, 4, 3)), backend=refuse)
    assert measure_model(compiled, (8, 8)).flops == flops


def test_missing_network_raises_with_its_name(module: Any, data: Any, make_trainer: Any) -> None:
    with pytest.raises(AttributeError, match="no attribute `backbone`"):
        make_trainer(ModelInfoWriter(), max_epochs=1).fit(module, datamodule=data)
