import pytest
import torch
from torch import nn
from torchvision.models import get_model

from cls_models.acceleration.batch_norm_check import check_batch_size_for_batch_norm
from cls_models.acceleration.errors import HardwareError


def test_check_rejects_batches_of_one_image_where_a_map_is_one_pixel() -> None:
    module = get_model("resnet18", weights=None, num_classes=3)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        module(torch.zeros(1, 3, 32, 32))
    before = {key: value.clone() for key, value in module.state_dict().items()}
    for rows, batch_size in ((1, 8), (9, 1)):
        with pytest.raises(
            HardwareError,
            match=rf"batch_size {batch_size} with {rows} training rows.*layer4.0.bn1 .*at 32x32 px",
        ):
            check_batch_size_for_batch_norm(module, rows, batch_size, (32, 32))
    assert module.training
    assert not any(layer._forward_pre_hooks for layer in module.modules())
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def test_check_accepts_larger_batches_and_larger_maps() -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.Flatten(), nn.LazyLinear(2)
    )
    module(torch.zeros(2, 3, 7, 7))
    # Nine rows in batches of eight: the ninth is dropped, because a full batch precedes it.
    check_batch_size_for_batch_norm(module, 9, 8, (3, 3))
    check_batch_size_for_batch_norm(module, 1, 1, (7, 7))


class FrozenNorm(nn.BatchNorm1d):
    def train(self, mode: bool = True) -> "FrozenNorm":
        return super().train(False)


def test_check_ignores_batch_norms_that_stay_in_evaluation_mode() -> None:
    def with_norm(norm: nn.Module) -> nn.Module:
        return nn.Sequential(nn.Flatten(), norm, nn.Linear(12, 2))

    check_batch_size_for_batch_norm(with_norm(FrozenNorm(12)), 1, 1, (2, 2))
    with pytest.raises(HardwareError, match="batch norm 1 would get"):
        check_batch_size_for_batch_norm(with_norm(nn.BatchNorm1d(12)), 1, 1, (2, 2))
