import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cls_models import build_backbone, parameter_groups, warmup_cosine


def test_norms_and_biases_do_not_decay_and_every_parameter_is_in_one_group() -> None:
    backbone = build_backbone("resnet18", num_classes=4)
    optimizer = torch.optim.AdamW(parameter_groups(backbone), lr=0.1, weight_decay=0.05)
    decaying, other = optimizer.param_groups
    assert (decaying["weight_decay"], other["weight_decay"]) == (0.05, 0.0)
    names = {parameter: name for name, parameter in backbone.named_parameters()}
    assert all("conv" in names[p] or "downsample.0" in names[p] or names[p] == "fc.weight" for p in decaying["params"])
    assert all("bn" in names[p] or "downsample.1" in names[p] or names[p] == "fc.bias" for p in other["params"])
    assert len(decaying["params"]) + len(other["params"]) == len(names)


def test_frozen_parameters_are_left_out() -> None:
    module = nn.Linear(2, 2)
    module.weight.requires_grad_(False)
    assert [len(group["params"]) for group in parameter_groups(module)] == [0, 1]


def rates(total: int, **settings: float) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = warmup_cosine(optimizer, total, **settings)
    found = []
    for _ in range(total):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


@given(total=st.integers(1, 300), warmup=st.floats(0, 0.9), final=st.floats(0, 0.5))
@settings(deadline=None)
def test_the_rate_rises_to_its_peak_and_falls_to_its_last_share(total: int, warmup: float, final: float) -> None:
    found = rates(total, warmup=warmup, final=final)
    peak = found.index(max(found))
    assert max(found) == pytest.approx(2.0)
    assert found[: peak + 1] == sorted(found[: peak + 1])
    assert found[peak:] == sorted(found[peak:], reverse=True)
    assert min(found[peak:]) >= 2.0 * final - 1e-9


def test_the_rate_follows_the_formula() -> None:
    found = rates(100, warmup=0.1, final=0.0)
    assert found[0] == pytest.approx(0.2)
    assert found[9] == pytest.approx(2.0)
    assert found[55] == pytest.approx(2.0 * (1 + math.cos(math.pi * 45 / 90)) / 2)


@pytest.mark.parametrize("warmup", [-0.1, 1.0, 5])
def test_a_warm_up_that_is_no_share_is_refused(warmup: float) -> None:
    with pytest.raises(ValueError, match="share of the training steps"):
        rates(10, warmup=warmup)
