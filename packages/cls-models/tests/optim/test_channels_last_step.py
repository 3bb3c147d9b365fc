import copy
import functools
from typing import Any

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from cls_models import build_optimizer

SGD = functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)
ADAMW = functools.partial(torch.optim.AdamW, lr=0.1)


def network() -> nn.Module:
    """Return a small network with channels-last weights."""
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 8, 3, bias=False), nn.Conv2d(8, 3, 3)
    layers = nn.Sequential(first, nn.BatchNorm2d(8), second, nn.Flatten(), nn.Linear(12, 2))
    return layers.to(memory_format=torch.channels_last)


def train(module: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 3) -> None:
    torch.manual_seed(1)
    for _ in range(steps):
        images, labels = torch.randn(4, 3, 6, 6), torch.tensor([0, 1, 1, 0])

        def closure() -> float:
            optimizer.zero_grad()
            # The closure is called in this iteration.
            loss = nn.functional.cross_entropy(module(images), labels)  # noqa: B023
            loss.backward()
            return float(loss.detach())

        assert isinstance(optimizer.step(closure), float)


def values(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """Return all parameters and their optimizer state."""
    tensors = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    states = [value for tensor in tensors for value in optimizer.state[tensor].values()]
    return [*tensors, *(state for state in states if isinstance(state, torch.Tensor))]


@pytest.mark.parametrize("factory", [SGD, ADAMW])
def test_fused_steps_on_channels_last_weights_equal_the_plain_loop(
    factory: functools.partial[Any],
) -> None:
    results = []
    for fused in (True, False):
        module = network()
        optimizer = build_optimizer(factory, module, fused=fused)
        train(module, optimizer)
        results.append(values(optimizer))
    for one, other in zip(*results, strict=True):
        assert one.shape == other.shape
        assert torch.allclose(one, other, atol=1e-5)


def test_step_keeps_shapes_and_strides() -> None:
    module = network()
    optimizer = build_optimizer(SGD, module)
    before = [(parameter.shape, parameter.stride()) for parameter in module.parameters()]
    train(module, optimizer)
    after = [(parameter.shape, parameter.stride()) for parameter in module.parameters()]
    assert after == before
    for parameter in module.parameters():
        assert parameter.grad is not None
        assert parameter.grad.stride() == parameter.stride()
        assert optimizer.state[parameter]["momentum_buffer"].stride() == parameter.stride()


def test_step_copies_no_gradient() -> None:
    module = network()
    optimizer = build_optimizer(SGD, module)
    train(module, optimizer)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        optimizer.step()
    assert "aten::_fused_sgd_" in {event.key for event in profiler.key_averages()}
    assert "aten::copy_" not in {event.key for event in profiler.key_averages()}


def test_momentum_with_another_layout_updates_the_right_weights() -> None:
    """As in a checkpoint from a GPU in float32, whose weights are not channels-last."""
    results = []
    for fused in (True, False):
        module = network()
        optimizer = build_optimizer(SGD, module, fused=fused)
        train(module, optimizer)
        state = copy.deepcopy(optimizer.state_dict())
        for entry in state["state"].values():
            entry["momentum_buffer"] = entry["momentum_buffer"].contiguous()
        optimizer.load_state_dict(state)
        train(module, optimizer)
        results.append(values(optimizer))
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(*results, strict=True))


def test_step_copies_no_gradient_when_the_factory_sets_fused() -> None:
    module = network()
    optimizer = build_optimizer(functools.partial(SGD, fused=True), module)
    train(module, optimizer)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        optimizer.step()
    assert "aten::copy_" not in {event.key for event in profiler.key_averages()}


def test_schedule_accepts_a_patched_optimizer() -> None:
    module = network()
    optimizer = build_optimizer(SGD, module)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer)
    train(module, optimizer, steps=1)
    schedule.step()
    assert optimizer.param_groups[0]["lr"] > 0.1 / 3


def test_error_in_a_step_restores_shapes() -> None:
    module = network()
    optimizer = build_optimizer(SGD, module)
    train(module, optimizer)
    shapes = [value.shape for value in values(optimizer)]

    def fail(*_: Any) -> None:
        assert [value.shape for value in values(optimizer)] != shapes, (
            "the hook runs inside the step"
        )
        raise ValueError("on purpose")

    optimizer.register_step_pre_hook(fail)
    with pytest.raises(ValueError, match="on purpose"):
        optimizer.step()
    assert [value.shape for value in values(optimizer)] == shapes
