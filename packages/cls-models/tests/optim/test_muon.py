import copy
import functools
import io
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from cls_models.finetuning.transfer import Transfer
from cls_models.optim.muon import Muon, orthogonalize
from cls_models.optim.param_groups import build_optimizer

make = functools.partial(Muon, lr=3e-3, weight_decay=0.01)


def perceptron() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(8, 16),
        nn.ReLU(),
        nn.Linear(16, 16),
        nn.ReLU(),
        nn.Linear(16, 24),
        nn.ReLU(),
        nn.Linear(24, 3),
    )


def train(module: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> list[float]:
    losses = []
    for step in steps:
        images = torch.randn(32, 8, generator=torch.Generator().manual_seed(step))
        labels = images[:, :3].argmax(dim=1)
        optimizer.zero_grad()
        loss = functional.cross_entropy(module(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("fused", [None, True])
def test_muon_lowers_the_loss(fused: bool | None) -> None:
    module = perceptron()
    losses = train(
        module, build_optimizer(functools.partial(make, fused=fused), module), range(150)
    )
    assert sum(losses[-10:]) / 10 < 0.4 * losses[0]


def test_muon_updates_hidden_matrices_and_adamw_the_rest() -> None:
    module = perceptron()
    optimizer = build_optimizer(make, module)
    train(module, optimizer, range(2))
    kinds = {name: set(optimizer.state[parameter]) for name, parameter in module.named_parameters()}
    adamw = {"step", "exp_avg", "exp_avg_sq"}
    assert {name for name, kind in kinds.items() if kind == {"momentum_buffer"}} == {
        "2.weight",
        "4.weight",
    }
    assert {name for name, kind in kinds.items() if kind == adamw} == kinds.keys() - {
        "2.weight",
        "4.weight",
    }


def test_other_parameters_are_updated_exactly_like_adamw() -> None:
    module = perceptron()
    reference = copy.deepcopy(module)
    optimizer = build_optimizer(make, module, fused=False)
    plain = torch.optim.AdamW(
        [reference[0].weight, reference[6].weight], lr=3e-3, weight_decay=0.01
    )
    images = torch.randn(4, 8)
    for network, each in ((module, optimizer), (reference, plain)):
        network(images).square().sum().backward()
        each.step()
    assert torch.equal(module[0].weight, reference[0].weight)
    assert torch.equal(module[6].weight, reference[6].weight)


def test_matrices_are_updated_like_torch_muon() -> None:
    """torch computes in bfloat16, so the results are only close."""
    weight = torch.randn(6, 4)
    ours, theirs = nn.Parameter(weight.clone()), nn.Parameter(weight.clone())
    rest = nn.Parameter(torch.zeros(1))
    optimizer = Muon(
        [{"params": [ours], "matrices": True}, {"params": [rest]}], lr=0.1, weight_decay=0.1
    )
    reference = torch.optim.Muon([theirs], lr=0.1, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        ours.grad = torch.randn(6, 4)
        theirs.grad = ours.grad.clone()
        optimizer.step()
        reference.step()
    with torch.no_grad():
        assert float((ours - theirs).norm() / (ours - weight).norm()) < 0.05


@pytest.mark.parametrize("fused", [None, True])
def test_resumed_muon_is_bit_identical(fused: bool | None) -> None:
    factory = functools.partial(make, fused=fused)
    module = perceptron()
    optimizer = build_optimizer(factory, module, Transfer(layer_decay=0.8))
    train(module, optimizer, range(5))
    file = io.BytesIO()
    torch.save((module.state_dict(), optimizer.state_dict()), file)
    train(module, optimizer, range(5, 10))
    file.seek(0)
    weights, state = torch.load(file, weights_only=True)
    resumed = perceptron()
    resumed.load_state_dict(weights)
    again = build_optimizer(factory, resumed, Transfer(layer_decay=0.8))
    again.load_state_dict(state)
    train(resumed, again, range(5, 10))
    assert all(
        torch.equal(*pair) for pair in zip(module.parameters(), resumed.parameters(), strict=True)
    )


@given(rows=st.integers(1, 40), columns=st.integers(1, 40), seed=st.integers(0, 9))
@settings(deadline=None, max_examples=50)
def test_orthogonalize_brings_singular_values_close_to_one(
    rows: int, columns: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    left, _ = torch.linalg.qr(torch.randn(rows, min(rows, columns), generator=generator))
    right, _ = torch.linalg.qr(torch.randn(columns, min(rows, columns), generator=generator))
    values = 0.2 + torch.rand(min(rows, columns), generator=generator)
    matrix = left * values @ right.mT
    result = left.mT @ orthogonalize(matrix[None])[0] @ right
    singular_values = result.diag()
    assert torch.allclose(result, singular_values.diag(), atol=1e-4)
    assert 0.6 < float(singular_values.min()) <= float(singular_values.max()) < 1.3


def test_muon_update_does_not_depend_on_the_memory_format() -> None:
    def get_update(memory_format: torch.memory_format) -> torch.Tensor:
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.Conv2d(4, 6, 3), nn.Flatten(), nn.Linear(6 * 16, 2)
        )
        network = network.to(memory_format=memory_format)  # type: ignore[call-overload]
        optimizer = build_optimizer(make, network)
        network(torch.ones(2, 3, 8, 8).to(memory_format=memory_format)).square().sum().backward()
        before = network[1].weight.detach().clone()
        optimizer.step()
        assert network[1].weight.is_contiguous(memory_format=memory_format)
        return network[1].weight.detach() - before

    assert torch.allclose(
        get_update(torch.contiguous_format), get_update(torch.channels_last), atol=1e-6
    )


def test_matrices_without_gradients_do_not_change() -> None:
    module = perceptron()
    optimizer = build_optimizer(make, module)
    train(module, optimizer, range(2))
    optimizer.zero_grad()
    before = copy.deepcopy(module.state_dict())
    optimizer.step()
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_closure_runs_with_gradients() -> None:
    module = perceptron()
    optimizer = build_optimizer(make, module)

    def closure() -> Any:
        loss = module(torch.ones(1, 8)).sum()
        loss.backward()
        return loss.detach()

    first = optimizer.step(closure)
    assert first == perceptron()(torch.ones(1, 8)).sum()
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_muon_rejects_a_network_without_hidden_matrices() -> None:
    with pytest.raises(ValueError, match="needs weight matrices between the stem and the head"):
        build_optimizer(
            make,
            nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2)),
        )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"momentum": 1.0}, "momentum must be"), ({"iterations": 0}, "iterations must be at least 1")],
)
def test_muon_rejects_settings_out_of_range(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_optimizer(functools.partial(make, **wrong), perceptron())
