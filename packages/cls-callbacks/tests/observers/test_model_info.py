import json
from pathlib import Path
from typing import Any

import pytest
import torch
from loguru import logger
from torch import nn

from cls_callbacks import ModelInfo
from cls_callbacks.observers.model_info import measure


def test_size_and_cost_are_written_and_logged_when_fit_starts(
    module: Any, data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    module.net[0].requires_grad_(False)
    lines: list[str] = []
    sink = logger.add(lines.append, format="{message}")
    make_trainer(ModelInfo("net"), max_epochs=1).fit(module, datamodule=data)
    logger.remove(sink)
    written = json.loads((tmp_path / "run/model_info.json").read_text())
    convolution, norm, linear = 4 * 3 * 9 + 4, 8, 784 * 3 + 3
    assert written["image"] == [16, 16]
    assert written["parameters"] == convolution + norm + linear
    assert written["trainable"] == norm + linear
    assert written["weights_mb"] == pytest.approx(written["parameters"] * 4 / 1e6)
    assert written["flops"] == 2 * (14 * 14 * 4 * 3 * 9 + 784 * 3)
    assert 0 < written["latency_ms"] < 1000
    assert (written["device"], written["threads"]) == ("cpu", torch.get_num_threads())
    assert (
        len(
            [
                line
                for line in lines
                if "model: 2,475 parameters (2,363 trainable), 0.0 MB; an image of" in line
            ]
        )
        == 1
    )


def test_an_observed_training_ends_with_the_very_weights_of_one_that_is_not(
    new_module: Any, data: Any, make_trainer: Any
) -> None:
    weights = []
    for callbacks in ([], [ModelInfo("net")]):
        module = new_module()
        module.net.insert(4, nn.Dropout(0.5))  # so that what is drawn shows in the weights
        torch.manual_seed(3)
        make_trainer(*callbacks, max_epochs=1).fit(module, datamodule=data)
        weights.append(module.state_dict())
    assert all(torch.equal(weights[0][name], tensor) for name, tensor in weights[1].items())


class DrawsAlways(nn.Module):
    """Draws in evaluation mode too."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images + torch.rand_like(images)


def test_the_network_is_left_as_it_was() -> None:
    network = nn.Sequential(
        DrawsAlways(), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.BatchNorm2d(4))
    )
    network.train()
    network[2].eval()  # as a frozen one is
    modes = [part.training for part in network.modules()]
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state = torch.get_rng_state()
    measure(network, (8, 8))
    assert [part.training for part in network.modules()] == modes
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(
        parameter.grad is None and not parameter.is_inference()
        for parameter in network.parameters()
    )
    assert torch.is_grad_enabled()
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_what_a_gpu_draws_next_is_left_as_it_was() -> None:
    network = nn.Sequential(DrawsAlways(), nn.Conv2d(3, 4, 3)).cuda()
    state = torch.cuda.get_rng_state()
    figures = measure(network, (8, 8))
    assert torch.equal(torch.cuda.get_rng_state(), state)
    assert figures.device == torch.cuda.get_device_name()


def test_a_failing_forward_leaves_modes_and_switches_behind_as_they_were() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(7, 2)).train()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        measure(network, (8, 8))
    assert all(part.training for part in network.modules())
    assert torch.backends.mha.get_fastpath_enabled()


class Attention(nn.Module):
    """One attention over the pixels, which evaluation would run as one fused operation."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(3, 1, batch_first=True)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = images.flatten(2).transpose(1, 2)
        attended: torch.Tensor = self.attention(tokens, tokens, tokens, need_weights=False)[0]
        return attended


def test_attention_counts() -> None:
    tokens, width = 4 * 4, 3
    expected = 2 * (
        tokens * width * 3 * width + 2 * tokens * tokens * width + tokens * width * width
    )
    assert measure(Attention(), (4, 4)).flops == expected


def test_a_compiled_network_is_measured_uncompiled() -> None:
    def refuse(*_: Any) -> Any:
        raise AssertionError("the compiler was asked")

    network = nn.Sequential(nn.Conv2d(3, 4, 3))
    flops = measure(network, (8, 8)).flops
    network.compile(backend=refuse)
    assert measure(network, (8, 8)).flops == flops
    assert (
        measure(torch.compile(nn.Sequential(nn.Conv2d(3, 4, 3)), backend=refuse), (8, 8)).flops
        == flops
    )


def test_a_module_without_that_network_is_refused_by_name(
    module: Any, data: Any, make_trainer: Any
) -> None:
    with pytest.raises(AttributeError, match="no attribute `backbone`"):
        make_trainer(ModelInfo(), max_epochs=1).fit(module, datamodule=data)
