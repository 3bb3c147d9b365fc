from collections.abc import Iterator
from typing import Any

import pytest
import torch
from loguru import logger
from torch import Tensor

from cls_callbacks import FastestBatchSizeFinder
from cls_data import ClassificationDataModule


@pytest.fixture
def lines() -> Iterator[list[str]]:
    said: list[str] = []
    sink = logger.add(said.append, format="{message}")
    yield said
    logger.remove(sink)


def with_forward(module: Any, too_large: int | None = None) -> Any:
    """Let the module be called, and memory end at some batch size."""

    def forward(images: Tensor) -> Tensor:
        if too_large is not None and len(images) >= too_large:
            raise RuntimeError(
                "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
            )
        logits: Tensor = module.net(images)
        return logits

    module.forward = forward
    return module


def test_a_batch_size_is_suggested_and_the_training_stays_the_same(
    new_module: Any, data: Any, make_trainer: Any, lines: list[str]
) -> None:
    weights = []
    for more in ([], [suggests := FastestBatchSizeFinder()]):
        module = with_forward(new_module())
        fresh = ClassificationDataModule(data.config, data.preprocessing)
        make_trainer(*more, max_epochs=2).fit(module, datamodule=fresh)
        weights.append(module.state_dict())
    assert all(torch.equal(weights[0][name], tensor) for name, tensor in weights[1].items())
    assert list(suggests.images_per_second) == [8, 16, 32]  # of 48 rows
    assert suggests.suggestion in suggests.images_per_second
    assert len([line for line in lines if "is the smallest that trains at full speed" in line]) == 1


def test_a_size_that_does_not_fit_is_named(
    new_module: Any, data: Any, make_trainer: Any, lines: list[str]
) -> None:
    suggests = FastestBatchSizeFinder()
    make_trainer(suggests, max_epochs=1).fit(
        with_forward(new_module(), too_large=32), datamodule=data
    )
    assert list(suggests.images_per_second) == [8, 16]
    assert [line for line in lines if "32 does not fit" in line]


def test_where_not_even_the_smallest_fits_nothing_is_suggested(
    new_module: Any, data: Any, make_trainer: Any, lines: list[str]
) -> None:
    suggests = FastestBatchSizeFinder()
    make_trainer(suggests, max_epochs=1).fit(
        with_forward(new_module(), too_large=1), datamodule=data
    )
    assert suggests.suggestion is None
    assert [line for line in lines if "nothing to suggest; 8 does not fit" in line]


def test_another_error_is_not_taken_for_too_little_memory(
    new_module: Any, data: Any, make_trainer: Any
) -> None:
    module = new_module()  # which has no forward
    with pytest.raises(NotImplementedError):
        make_trainer(FastestBatchSizeFinder(), max_epochs=1).fit(module, datamodule=data)


@pytest.mark.parametrize("name", ["largest", "steps"])
def test_nothing_to_try_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be 1 or more, got 0"):
        FastestBatchSizeFinder(**{name: 0})
