from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import get_model

from cls_data import ClassificationBatch
from cls_models.backbones.heads import DropoutLinear, get_head
from cls_models.finetuning.feature_cache import (
    FeatureCache,
    FeatureCacheError,
    check_features_cacheable,
)

ROWS = 11


def network(*before_head: nn.Module, last: nn.Module | None = None) -> nn.Sequential:
    torch.manual_seed(0)
    body = (nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    module = nn.Sequential(*body, *(before_head or (nn.Flatten(),)), last or nn.Linear(6, 3))
    module(images_of())  # updates the batch norm statistics
    return module


def images_of(rows: int = ROWS, size: int = 6) -> Tensor:
    return torch.randn(rows, 3, size, size, generator=torch.Generator().manual_seed(1))


def batches(
    images: Tensor, order: Tensor | None = None, size: int = 4
) -> Iterator[ClassificationBatch]:
    for index in (torch.arange(len(images)) if order is None else order).split(size):
        yield ClassificationBatch(
            images=images[index], labels=torch.zeros(len(index), dtype=torch.int64), index=index
        )


def freeze(backbone: nn.Module) -> None:
    backbone.requires_grad_(False)
    get_head(backbone).requires_grad_(True)


@settings(deadline=None, max_examples=30)
@given(
    order=st.permutations(range(ROWS)),
    size=st.integers(1, ROWS),
    index=st.lists(st.integers(0, ROWS - 1)),
)
def test_cache_returns_the_logits_of_each_row_for_any_batches(
    order: list[int], size: int, index: list[int]
) -> None:
    backbone, images, rows = network().eval(), images_of(), torch.tensor(index, dtype=torch.int64)
    cache = FeatureCache.compute(backbone, batches(images, torch.tensor(order), size), ROWS)
    expected = backbone(images[rows]) if index else torch.empty(0, 3)
    torch.testing.assert_close(cache.logits(rows), expected, atol=1e-6, rtol=1e-5)
    assert cache(rows).shape == (len(index), 6)
    assert cache.features.nbytes == ROWS * 6 * 4


@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5", "convnext_tiny"]
)
def test_cache_supports_torchvision_networks(name: str) -> None:
    backbone = get_model(name, weights=None, num_classes=3).eval()
    images = images_of(3, 64)
    cache = FeatureCache.compute(backbone, batches(images, size=2), 3)
    with torch.no_grad():
        torch.testing.assert_close(
            cache.logits(torch.arange(3)), backbone(images), atol=1e-4, rtol=1e-4
        )


def test_gradients_with_the_cache_equal_those_without_it() -> None:
    backbone, images, rows = network().eval(), images_of(), torch.tensor([7, 2, 2, 9])
    freeze(backbone)
    labels = torch.tensor([0, 1, 2, 0])
    gradients = []
    cache = FeatureCache.compute(backbone, batches(images), ROWS)
    for logits in (cache.logits(rows), backbone(images[rows])):
        get_head(backbone).zero_grad()
        functional.cross_entropy(logits, labels).backward()
        gradients.append(get_head(backbone).weight.grad.clone())
    torch.testing.assert_close(*gradients)
    assert not cache.features.requires_grad


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("flatten_first", [False, True])
def test_cache_applies_the_dropout_before_the_head(flatten_first: bool, inplace: bool) -> None:
    layers = [nn.Dropout(0.5, inplace=inplace), nn.Flatten()]
    backbone = network(*(reversed(layers) if flatten_first else layers))
    cache = FeatureCache.compute(backbone, batches(images_of()), ROWS)
    assert cache.dropout == 0.5
    index = torch.arange(ROWS)
    before = cache.features.clone()
    backbone.train()
    assert not torch.equal(cache.logits(index), cache.logits(index))
    backbone.eval()
    assert torch.equal(cache.logits(index), cache.logits(index))
    assert torch.equal(cache.features, before)


def test_cache_ignores_dropout_that_is_not_directly_before_the_head() -> None:
    layers = (
        nn.Flatten(),
        nn.Linear(6, 6),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Linear(6, 6),
        nn.Hardswish(),
    )
    assert FeatureCache.compute(network(*layers), batches(images_of()), ROWS).dropout == 0


def test_dropout_linear_head_applies_dropout_once() -> None:
    backbone = network(last=DropoutLinear(6, 3, rate=0.5))
    cache = FeatureCache.compute(backbone, batches(images_of()), ROWS)
    assert cache.dropout == 0
    backbone.train()
    assert not torch.equal(cache.logits(torch.arange(ROWS)), cache.logits(torch.arange(ROWS)))


def test_compute_does_not_change_the_backbone() -> None:
    backbone = network(nn.Dropout(0.5), nn.Flatten()).train()
    backbone[1].eval()  # a frozen batch norm
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    FeatureCache.compute(backbone, batches(images_of()), ROWS)
    assert [part.training for part in backbone] == [True, False, True, True, True, True, True]
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())
    assert not any(part._forward_hooks for part in backbone.modules())


def test_features_are_float32_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        cache = FeatureCache.compute(network(), batches(images_of()), ROWS)
        logits = cache.logits(torch.arange(2))
    assert cache.features.dtype == torch.float32
    assert logits.dtype == torch.bfloat16


class HeadTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 3)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.fc(images.mean((2, 3)).repeat(1, 2)) + self.fc(
            images.amax((2, 3)).repeat(1, 2)
        )
        return logits


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        (
            lambda: get_model("squeezenet1_1", weights=None, num_classes=3),
            r"takes \[4, 512, .*one vector \[F\] per image",
        ),
        (
            lambda: nn.Sequential(network(), nn.Softmax(1)),
            "the head 0.5 of Sequential is not the last operation",
        ),
        (HeadTwice, "runs 2 times per forward pass"),
        (
            lambda: network(nn.Dropout2d(0.5), nn.Flatten()),
            "Dropout2d before the head 6 cannot be applied",
        ),
    ],
)
def test_compute_rejects_unsupported_networks(backbone: Any, message: str) -> None:
    with pytest.raises(FeatureCacheError, match=message):
        FeatureCache.compute(backbone(), batches(images_of(size=40)), ROWS)


def test_compute_rejects_missing_rows_and_indices() -> None:
    images = images_of()
    with pytest.raises(FeatureCacheError, match="2 of 13 rows are missing in the batches"):
        FeatureCache.compute(network(), batches(images), 13)
    with pytest.raises(FeatureCacheError, match="11 of 11 rows are missing"):
        FeatureCache.compute(network(), [], ROWS)
    with pytest.raises(FeatureCacheError, match=r"rows 8 to 10, outside 0\.\.9"):
        FeatureCache.compute(network(), batches(images), 10)
    with pytest.raises(FeatureCacheError, match="the batch has no index"):
        FeatureCache.compute(
            network(), [ClassificationBatch(images=images, labels=torch.zeros(ROWS))], ROWS
        )


def test_compute_rejects_a_cache_above_the_memory_limit() -> None:
    with pytest.raises(
        FeatureCacheError,
        match="11 rows of 6 float32 features takes 264 bytes, more than the limit of 263",
    ):
        FeatureCache.compute(network(), batches(images_of()), ROWS, max_bytes=263)
    assert (
        FeatureCache.compute(network(), batches(images_of()), ROWS, max_bytes=264).features.nbytes
        == 264
    )


def test_check_features_cacheable_rejects_changing_images_and_trained_layers() -> None:
    backbone = network()
    freeze(backbone)
    check_features_cacheable(backbone, augmented=False, mixed=False)
    with pytest.raises(FeatureCacheError, match="Set augmentation=none"):
        check_features_cacheable(backbone, augmented=True, mixed=False)
    with pytest.raises(FeatureCacheError, match="Set mixing=none"):
        check_features_cacheable(backbone, augmented=False, mixed=True)
    backbone[1].requires_grad_(True)
    with pytest.raises(
        FeatureCacheError, match=r"2 tensors before the head are trained \(such as 1.weight\)"
    ):
        check_features_cacheable(backbone, augmented=False, mixed=False)
    backbone.requires_grad_(False)
    with pytest.raises(FeatureCacheError, match="head is frozen too"):
        check_features_cacheable(backbone, augmented=False, mixed=False)
