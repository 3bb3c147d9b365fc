import functools
from itertools import chain
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import Trainer
from lightning.pytorch.plugins import MixedPrecision
from torch import nn
from torchvision.models import get_model

from cls_models.backbones.layer_ids import get_layer_ids
from cls_models.finetuning.transfer import Transfer
from cls_models.optim.muon import Muon
from cls_models.optim.param_groups import build_optimizer, build_param_groups, is_fused_allowed
from cls_models.optim.schedules import warmup_cosine


def resnet() -> nn.Module:
    with torch.device("meta"):
        backbone: nn.Module = get_model("resnet18", weights=None, num_classes=4)
    return backbone


def small() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3),
        nn.Flatten(),
        nn.Linear(4 * 16, 3),
    )


def names_of(backbone: nn.Module, group: dict[str, Any]) -> set[str]:
    names = {parameter: name for name, parameter in backbone.named_parameters()}
    return {names[parameter] for parameter in group["params"]}


def test_norms_and_biases_have_no_weight_decay() -> None:
    backbone = resnet()
    optimizer = torch.optim.AdamW(build_param_groups(backbone), lr=0.1, weight_decay=0.05)
    for group in optimizer.param_groups:
        decays = {
            "conv" in name or "downsample.0" in name or name == "fc.weight"
            for name in names_of(backbone, group)
        }
        assert decays == {group["weight_decay"] == 0.05}
        assert group["weight_decay"] in (0.05, 0.0)


@pytest.mark.parametrize("name", ["vit_b_32", "swin_v2_t", "convnext_tiny", "maxvit_t"])
def test_embeddings_and_layer_scales_have_no_weight_decay(name: str) -> None:
    with torch.device("meta"):
        backbone = get_model(name, weights=None)
    groups = build_param_groups(backbone)
    no_decay = next(group for group in groups if group.get("weight_decay") == 0.0)
    names = {name for name, _ in backbone.named_parameters() if not name.endswith("weight")}
    assert names <= names_of(backbone, no_decay)


@given(decay=st.floats(0.3, 1.0), frozen=st.integers(0, 9), frozen_norms=st.booleans())
@settings(deadline=None, max_examples=15)
def test_groups_contain_every_parameter_exactly_once(
    decay: float, frozen: int, frozen_norms: bool
) -> None:
    backbone = resnet()
    transfer = Transfer(
        frozen=frozen, layer_decay=decay, batch_norm="frozen" if frozen_norms else "train"
    )
    before = [[id(p) for p in group["params"]] for group in build_param_groups(backbone, transfer)]
    assert sorted(chain.from_iterable(before)) == sorted(
        id(parameter) for parameter in backbone.parameters()
    )
    transfer.freeze_for_epoch(backbone, 0)
    assert [
        [id(p) for p in group["params"]] for group in build_param_groups(backbone, transfer)
    ] == before


def test_groups_exclude_frozen_parameters_without_a_transfer() -> None:
    module = nn.Linear(2, 2)
    module.weight.requires_grad_(False)
    assert [group["params"] for group in build_param_groups(module)] == [[module.bias]]


def test_matrices_exclude_stem_head_and_grouped_convolutions() -> None:
    backbone = resnet()
    matrices = [group for group in build_param_groups(backbone) if group["matrices"]]
    assert len(matrices) == 1
    assert {"conv1.weight", "fc.weight"}.isdisjoint(names_of(backbone, matrices[0]))
    assert len(matrices[0]["params"]) == 19
    grouped = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, groups=4), nn.Linear(4, 2))
    assert not any(group["matrices"] for group in build_param_groups(grouped))


def test_parameters_of_extra_modules_have_the_full_rate() -> None:
    loss, backbone = nn.Bilinear(2, 2, 3), small()
    teacher = nn.Linear(2, 2).requires_grad_(False)
    groups = build_param_groups(backbone, Transfer(layer_decay=0.5), [loss, teacher, backbone])
    together = [parameter for group in groups for parameter in group["params"]]
    assert len(together) == len({id(parameter) for parameter in together}) == 7 + 2
    scales = [
        group["lr_scale"]
        for group in groups
        for p in group["params"]
        if p is loss.weight or p is loss.bias
    ]
    assert scales == [1.0, 1.0]


@given(decay=st.floats(0.1, 1.0), lr=st.floats(1e-5, 1.0))
@settings(deadline=None, max_examples=20)
def test_layer_decay_scales_rates_by_distance_from_the_head(decay: float, lr: float) -> None:
    backbone = resnet()
    optimizer = build_optimizer(
        functools.partial(torch.optim.SGD, lr=lr), backbone, Transfer(layer_decay=decay)
    )
    numbers = get_layer_ids(backbone)
    for group in optimizer.param_groups:
        for name in names_of(backbone, group):
            assert group["lr"] == pytest.approx(lr * decay ** (9 - numbers[name]))
    assert optimizer.param_groups[0]["lr"] == lr


def test_schedule_keeps_the_scales_of_layers() -> None:
    backbone = small()
    optimizer = build_optimizer(
        functools.partial(torch.optim.SGD, lr=1.0), backbone, Transfer(layer_decay=0.5)
    )
    schedule = warmup_cosine(optimizer, 10)
    for _ in range(10):
        assert {group["lr"] / group["lr_scale"] for group in optimizer.param_groups} == {
            optimizer.param_groups[0]["lr"]
        }
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize(
    "factory",
    [Muon]
    + [
        getattr(torch.optim, name)
        for name in (
            "AdamW",
            "Adam",
            "SGD",
            "RMSprop",
            "Adagrad",
            "Adadelta",
            "Adamax",
            "NAdam",
            "RAdam",
            "ASGD",
            "Rprop",
        )
    ],
)
def test_torch_optimizers_accept_the_groups(factory: Any) -> None:
    backbone = small()
    optimizer = build_optimizer(
        functools.partial(factory, lr=1e-2), backbone, Transfer(layer_decay=0.5)
    )
    backbone(torch.randn(2, 3, 8, 8)).square().sum().backward()
    before = [parameter.detach().clone() for parameter in backbone.parameters()]
    optimizer.step()
    assert not any(torch.equal(*pair) for pair in zip(before, backbone.parameters(), strict=True))
    optimizer.load_state_dict(optimizer.state_dict())
    assert min(group["lr"] for group in optimizer.param_groups) == pytest.approx(1e-2 * 0.25)


def test_fused_kernels_are_used_if_supported() -> None:
    fused = build_optimizer(functools.partial(torch.optim.AdamW, lr=0.1), small())
    assert fused.defaults["fused"] is True
    on_meta = build_optimizer(functools.partial(torch.optim.AdamW, lr=0.1), resnet())
    assert on_meta.defaults["fused"] is None
    without = build_optimizer(functools.partial(torch.optim.RMSprop, lr=0.1), small())
    assert "fused" not in without.defaults


@pytest.mark.parametrize(
    "options", [{"fused": None}, {"fused": False}, {"foreach": True}, {"differentiable": True}]
)
def test_kernel_settings_of_the_factory_are_kept(options: dict[str, Any]) -> None:
    optimizer = build_optimizer(functools.partial(torch.optim.AdamW, lr=0.1, **options), small())
    assert not optimizer.defaults["fused"]
    assert optimizer.defaults.items() >= options.items()


def test_fused_false_disables_fused_kernels() -> None:
    optimizer = build_optimizer(functools.partial(torch.optim.AdamW, lr=0.1), small(), fused=False)
    assert optimizer.defaults["fused"] is None


def test_errors_of_the_optimizer_are_raised() -> None:
    with pytest.raises(ValueError, match="Invalid learning rate"):
        build_optimizer(functools.partial(torch.optim.AdamW, lr=-1.0), small())


def test_fused_is_not_allowed_with_mixed_precision_clipping_or_loss_scaling() -> None:
    def trainer(**arguments: Any) -> Trainer:
        return Trainer(
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            **arguments,
        )

    assert is_fused_allowed(trainer(gradient_clip_val=1.0))
    assert is_fused_allowed(trainer(precision="bf16-mixed"))
    assert not is_fused_allowed(trainer(gradient_clip_val=1.0, precision="bf16-mixed"))
    assert not is_fused_allowed(trainer(plugins=MixedPrecision("16-mixed", "cpu")))
