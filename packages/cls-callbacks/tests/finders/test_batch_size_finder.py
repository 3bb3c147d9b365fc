from typing import Any

import pytest
import torch
from torch import Tensor

from cls_callbacks import FastestBatchSizeFinder
from cls_data import ClassificationDataModule


def with_forward(module: Any, too_large: int | None = None) -> Any:
    """Give the module a forward method that runs out of memory from some batch size on."""

    def forward(images: Tensor) -> Tensor:
        if too_large is not None and len(images) >= too_large:
            raise RuntimeError(
                "[enforce fail] DefaultCPUAllocator: can't allocate memory: "
                "you tried to allocate 9 bytes"
            )
        logits: Tensor = module.net(images)
        return logits

    module.forward = forward
    return module


def test_batch_size_is_suggested_without_changing_the_training(
    new_module: Any, data: Any, make_trainer: Any, log_messages: list[str]
) -> None:
    weights = []
    for more in ([], [finder := FastestBatchSizeFinder()]):
        module = with_forward(new_module())
        fresh = ClassificationDataModule(data.config, data.preprocessing)
        make_trainer(*more, max_epochs=2).fit(module, datamodule=fresh)
        weights.append(module.state_dict())
    assert all(torch.equal(weights[0][name], tensor) for name, tensor in weights[1].items())
    assert list(finder.images_per_second) == [8, 16, 32]  # of 48 rows
    assert finder.suggestion in finder.images_per_second
    assert (
        len([line for line in log_messages if "is the smallest batch at full speed" in line]) == 1
    )


def test_batch_size_that_does_not_fit_is_logged(
    new_module: Any, data: Any, make_trainer: Any, log_messages: list[str]
) -> None:
    finder = FastestBatchSizeFinder()
    make_trainer(finder, max_epochs=1).fit(
        with_forward(new_module(), too_large=32), datamodule=data
    )
    assert list(finder.images_per_second) == [8, 16]
    assert [line for line in log_messages if "32 does not fit" in line]


def test_nothing_is_suggested_when_the_smallest_does_not_fit(
    new_module: Any, data: Any, make_trainer: Any, log_messages: list[str]
) -> None:
    finder = FastestBatchSizeFinder()
    make_trainer(finder, max_epochs=1).fit(with_forward(new_module(), too_large=1), datamodule=data)
    assert finder.suggestion is None
    assert [line for line in log_messages if "no suggestion; 8 does not fit" in line]


def test_other_errors_are_raised(new_module: Any, data: Any, make_trainer: Any) -> None:
    module = new_module()  # has no forward method
    with pytest.raises(NotImplementedError):
        make_trainer(FastestBatchSizeFinder(), max_epochs=1).fit(module, datamodule=data)


@pytest.mark.parametrize("name", ["max_batch_size", "steps"])
def test_finder_rejects_settings_below_one(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        FastestBatchSizeFinder(**{name: 0})
