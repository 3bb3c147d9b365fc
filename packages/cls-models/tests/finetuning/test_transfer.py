import copy
import functools
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from cls_models.backbones.layer_ids import get_layer_ids
from cls_models.finetuning.transfer import Transfer
from cls_models.optim.muon import Muon
from cls_models.optim.param_groups import build_optimizer


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = x + self.dropout(self.norm(self.conv(x)).relu())
        return result


def network() -> nn.Sequential:
    """Return a network of six layers: the stem, four blocks, and the head."""
    torch.manual_seed(0)
    stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    return nn.Sequential(
        stem, *(Block() for _ in range(4)), nn.Flatten(), nn.Dropout(0.1), nn.Linear(4 * 36, 3)
    )


def step(backbone: nn.Module, optimizer: Optimizer) -> None:
    optimizer.zero_grad()
    backbone(torch.randn(4, 3, 8, 8)).square().sum().backward()
    optimizer.step()


def changed(before: dict[str, torch.Tensor], backbone: nn.Module) -> set[str]:
    return {
        name
        for name, value in backbone.state_dict().items()
        if not torch.equal(before[name], value)
    }


sgd = functools.partial(SGD, lr=0.01, momentum=0.9, nesterov=True, weight_decay=0.1)
FACTORIES: list[Any] = [
    *(
        functools.partial(sgd, **kind)
        for kind in ({}, {"foreach": True}, {"fused": True}, {"foreach": False})
    ),
    *(
        functools.partial(AdamW, lr=0.01, weight_decay=0.1, **kind)
        for kind in ({}, {"foreach": True}, {"fused": None})
    ),
    functools.partial(Muon, lr=0.01, weight_decay=0.1),
]


@pytest.mark.parametrize("factory", FACTORIES)
def test_frozen_layers_are_bit_identical_after_training(factory: Callable[..., Optimizer]) -> None:
    backbone = network()
    transfer = Transfer(frozen=3)
    optimizer = build_optimizer(factory, backbone, transfer)
    transfer.freeze_for_epoch(backbone, 0)
    before = copy.deepcopy(backbone.state_dict())
    for _ in range(3):
        backbone.train()
        transfer.set_frozen_to_eval(backbone)
        step(backbone, optimizer)
    frozen = ("0.", "1.", "2.")
    assert changed(before, backbone) == {name for name in before if not name.startswith(frozen)}


@pytest.mark.parametrize("factory", FACTORIES)
def test_existing_momentum_does_not_change_layers_that_are_frozen_later(
    factory: Callable[..., Optimizer],
) -> None:
    backbone = network()
    optimizer = build_optimizer(factory, backbone, Transfer())
    step(backbone, optimizer)  # also leaves gradients
    Transfer(frozen="all_but_head").freeze_for_epoch(backbone, 0)
    before = copy.deepcopy(backbone.state_dict())
    optimizer.step()
    step(backbone, optimizer)
    assert changed(before, backbone) == {"7.weight", "7.bias"}


def test_resumed_gradual_unfreezing_equals_an_uninterrupted_run() -> None:
    transfer = Transfer(frozen="all_but_head", unfreeze_at=[1, 3], layer_decay=0.8)

    def run(backbone: nn.Module, optimizer: Optimizer, epochs: range) -> None:
        for epoch in epochs:
            transfer.freeze_for_epoch(backbone, epoch)
            torch.manual_seed(epoch)
            step(backbone, optimizer)

    for stop in range(1, 5):
        whole, first, second = network(), network(), network()
        optimizers = [
            build_optimizer(sgd, backbone, transfer) for backbone in (whole, first, second)
        ]
        run(whole, optimizers[0], range(5))
        run(first, optimizers[1], range(stop))
        second.load_state_dict(first.state_dict())
        optimizers[2].load_state_dict(optimizers[1].state_dict())
        run(second, optimizers[2], range(stop, 5))
        assert changed(whole.state_dict(), second) == set()


@given(
    layers=st.integers(2, 40),
    starts=st.lists(st.integers(1, 30), min_size=1, max_size=6, unique=True).map(sorted),
    epochs=st.lists(st.integers(0, 40), min_size=1, max_size=10),
)
def test_unfreezing_depends_only_on_the_epoch_and_reaches_the_stem(
    layers: int, starts: list[int], epochs: list[int]
) -> None:
    transfer = Transfer(frozen="all_but_head", unfreeze_at=starts)
    by_epoch = [transfer.count_frozen_layers(layers, epoch) for epoch in range(41)]
    assert [transfer.count_frozen_layers(layers, epoch) for epoch in epochs] == [
        by_epoch[epoch] for epoch in epochs
    ]
    assert by_epoch == sorted(by_epoch, reverse=True)
    assert by_epoch[0] == by_epoch[starts[0] - 1] == layers - 1
    assert by_epoch[starts[-1]] == 0
    unfrozen = [by_epoch[start - 1] - by_epoch[start] for start in starts]
    assert max(unfrozen) - min(unfrozen) <= 1


def test_freeze_for_epoch_does_not_depend_on_earlier_calls() -> None:
    transfer = Transfer(frozen=4, unfreeze_at=(2, 4), batch_norm="frozen")
    backbone = network()
    for epoch in (5, 0, 3, 4, 1, 2):
        transfer.freeze_for_epoch(backbone, epoch)
        fresh = network()
        transfer.freeze_for_epoch(fresh, epoch)
        for one, other in zip(backbone.modules(), fresh.modules(), strict=True):
            assert one.training == other.training
        states = [
            [parameter.requires_grad for parameter in module.parameters()]
            for module in (backbone, fresh)
        ]
        assert states[0] == states[1]
        numbers = get_layer_ids(backbone)
        trains = {
            numbers[name]
            for name, parameter in backbone.named_parameters()
            if parameter.requires_grad
        }
        assert trains == set(range(transfer.count_frozen_layers(6, epoch), 6))


def test_frozen_batch_norms_are_bit_identical_after_training() -> None:
    backbone = network()
    transfer = Transfer(batch_norm="frozen")
    optimizer = build_optimizer(sgd, backbone, transfer)
    transfer.freeze_for_epoch(backbone, 0)
    before = copy.deepcopy(backbone.state_dict())
    for _ in range(2):
        backbone.train()
        transfer.set_frozen_to_eval(backbone)
        step(backbone, optimizer)
    norms = {
        f"{path}."
        for path, module in backbone.named_modules()
        if isinstance(module, nn.BatchNorm2d)
    }
    assert len(norms) == 5
    assert changed(before, backbone) == {
        name for name in before if not name.startswith(tuple(norms))
    }


def test_frozen_layers_are_deterministic() -> None:
    backbone = network()
    Transfer(frozen=3).freeze_for_epoch(backbone, 0)
    images = torch.randn(4, 3, 8, 8)
    assert torch.equal(backbone[:3](images), backbone[:3](images))
    assert not torch.equal(backbone[:4](images), backbone[:4](images))
    assert backbone[6].training  # the dropout before the head


def test_unfrozen_layers_return_to_training_mode() -> None:
    backbone, transfer = network(), Transfer(frozen=3, unfreeze_at=[1])
    transfer.freeze_for_epoch(backbone, 0)
    assert not backbone[1].norm.training
    transfer.freeze_for_epoch(backbone, 1)
    assert all(module.training for module in backbone.modules())


def test_freeze_for_epoch_keeps_evaluation_mode() -> None:
    backbone = network().eval()
    Transfer(frozen=3).freeze_for_epoch(backbone, 0)
    assert not any(module.training for module in backbone.modules())


def test_trains_head_only_is_false_with_unfreezing() -> None:
    assert Transfer(frozen="all_but_head").trains_head_only
    assert not Transfer(frozen="all_but_head", unfreeze_at=[1]).trains_head_only
    assert not Transfer().trains_head_only


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"frozen": "all"},
            "frozen must be 'none', 'all_but_head', or a number of layers, got 'all'",
        ),
        ({"frozen": -1}, "frozen must be"),
        ({"frozen": True}, "frozen must be"),
        ({"frozen": None}, "frozen must be"),
        ({"frozen": 3, "unfreeze_at": [2, 2]}, r"increasing epochs of at least 1, got \[2, 2\]"),
        ({"frozen": 3, "unfreeze_at": [0]}, "increasing epochs of at least 1"),
        ({"frozen": 3, "unfreeze_at": [1.5]}, "increasing epochs of at least 1"),
        ({"unfreeze_at": [1]}, "nothing to unfreeze; set frozen as well"),
        ({"layer_decay": 0.0}, "layer_decay must be above 0 and at most 1"),
        ({"layer_decay": 1.5}, "layer_decay must be above 0 and at most 1"),
        ({"cache_features": True}, "cache_features needs frozen: all_but_head"),
        (
            {"cache_features": True, "frozen": "all_but_head", "unfreeze_at": [3]},
            "and no unfreeze_at",
        ),
        ({"batch_norm": "eval"}, "batch_norm must be 'train' or 'frozen', got 'eval'"),
    ],
)
def test_transfer_rejects_settings_out_of_range(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Transfer(**wrong)


def test_freeze_for_epoch_rejects_freezing_the_head() -> None:
    with pytest.raises(
        ValueError, match="6 layers, but the backbone has 6 and its last one, the head, must train"
    ):
        Transfer(frozen=6).freeze_for_epoch(network(), 0)


@pytest.mark.parametrize(
    ("transfer", "note"),
    [
        (
            Transfer(frozen=4, unfreeze_at=[1, 9]),
            r"unfreeze_at \[9\] is not reached in 5 epochs, so 2 of 6 layers",
        ),
        (Transfer(frozen=1, unfreeze_at=[1, 2]), "unfreeze_at has 2 epochs for 1 layers"),
        (
            Transfer(frozen="all_but_head", layer_decay=0.5),
            "layer_decay 0.5 has no effect: only the head trains",
        ),
        (
            Transfer(layer_decay=0.1),
            "lowest trained layer of 6 with 1e-05 of the learning rate; 0.55 would leave",
        ),
    ],
)
def test_ineffective_settings_are_reported(transfer: Transfer, note: str) -> None:
    notes = transfer.find_ineffective_settings(network(), 5)
    assert len(notes) == 1
    assert re.search(note, notes[0])


def test_frozen_batch_norm_is_reported_without_batch_norms() -> None:
    plain = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    notes = Transfer(batch_norm="frozen").find_ineffective_settings(plain, 3)
    assert "has no batch norm" in notes[0]


@pytest.mark.parametrize(
    "transfer", [Transfer(), Transfer(frozen=4, unfreeze_at=[1, 2], layer_decay=0.8)]
)
def test_effective_settings_are_not_reported(transfer: Transfer) -> None:
    assert transfer.find_ineffective_settings(network(), 5) == []
