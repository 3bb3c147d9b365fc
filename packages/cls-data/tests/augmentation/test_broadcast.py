from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cls_data import BroadcastDegradation, ParamSampler
from cls_data.augmentation.broadcast import add_noise


@pytest.fixture
def gray() -> Tensor:
    return torch.full((4, 3, 100, 100), 128.0)


def draw(op: BroadcastDegradation, samples: int, seed: int = 0) -> Any:
    return op.draw(ParamSampler(samples, seed, "broadcast"))


def test_noise_has_the_given_deviation_and_no_bias(gray: Tensor) -> None:
    deviation = np.array([0.5, 2, 8, 20], np.float32)
    noise = add_noise(gray.clone(), deviation, seeds=np.arange(4)) - gray
    assert noise.std(dim=(1, 2, 3)).numpy() == pytest.approx(deviation, rel=0.02)
    assert np.abs(noise.mean(dim=(1, 2, 3)).numpy() / deviation).max() < 0.02


def test_noise_is_independent_across_samples_channels_and_pixels(gray: Tensor) -> None:
    noise = add_noise(gray.clone(), np.full(4, 5, np.float32), seeds=np.arange(4)) - gray
    correlation = torch.corrcoef(noise.flatten(2).flatten(0, 1)) - torch.eye(12)
    assert correlation.abs().max() < 0.05
    assert (noise[..., 1:] * noise[..., :-1]).mean().abs() / 25 < 0.02


def test_noisy_levels_stay_between_0_and_255() -> None:
    edges = torch.tensor([0.0, 255.0])[:, None, None, None].expand(2, 3, 50, 50).clone()
    noisy = add_noise(edges, np.full(2, 40, np.float32), seeds=np.arange(2))
    assert 0 == noisy.min() < noisy.max() == 255


def test_same_seeds_give_the_same_noise(gray: Tensor) -> None:
    deviation = np.full(4, 5, np.float32)
    first, second = (add_noise(gray.clone(), deviation, seeds=np.arange(4)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, add_noise(gray.clone(), deviation, seeds=np.arange(4) + 8))


def test_each_step_changes_its_share_of_the_selected_samples() -> None:
    op = BroadcastDegradation(
        probability=0.6,
        zoom_probability=0.5,
        downscale_probability=0.2,
        noise_probability=0.8,
        jpeg_probability=1,
    )
    drawn = draw(op, 20_000)
    assert (drawn["zoom"] != 1).mean() == pytest.approx(0.3, abs=0.02)
    assert drawn["downscaled"].mean() == pytest.approx(0.12, abs=0.02)
    assert drawn["noisy"].mean() == pytest.approx(0.48, abs=0.02)
    assert drawn["compressed"].mean() == pytest.approx(0.6, abs=0.02)
    # No step changes a sample that is not selected.
    changed = (drawn["zoom"] != 1) | drawn["downscaled"] | drawn["noisy"]
    assert not (changed & ~drawn["compressed"]).any()


def test_strengths_lie_in_the_given_ranges() -> None:
    drawn = draw(
        BroadcastDegradation(
            zoom=(0.7, 1.5), downscale=(0.3, 0.6), noise=(1, 3), jpeg_quality=(40, 60)
        ),
        20_000,
    )
    for name, low, high in (
        ("zoom", 0.7, 1.5),
        ("shares", 0.3, 0.6),
        ("deviation", 1, 3),
        ("quality", 40, 60),
    ):
        assert low - 1e-4 <= drawn[name].min() < low * 1.05
        assert high * 0.95 < drawn[name].max() <= high + 1e-4


@pytest.mark.parametrize("step", ["downscale", "noise", "jpeg"])
def test_each_step_changes_images_and_inactive_steps_do_not(step: str) -> None:
    images = torch.randint(
        0, 256, (8, 3, 32, 32), generator=torch.Generator().manual_seed(0)
    ).float()
    none: dict[str, Any] = {
        f"{name}_probability": 0 for name in ("zoom", "downscale", "noise", "jpeg")
    }
    inactive, active = (
        BroadcastDegradation(probability=1, **settings)
        for settings in (none, {**none, f"{step}_probability": 1})
    )
    assert torch.equal(inactive.apply(images.clone(), draw(inactive, 8)), images)
    changed = active.apply(images.clone(), draw(active, 8))
    assert (changed - images).abs().mean(dim=(1, 2, 3)).min() > 0.5


@pytest.mark.parametrize(
    "wrong", [{"jpeg_quality": (80, 30)}, {"jpeg_quality": (0, 30)}, {"noise": (3, 2)}]
)
def test_invalid_range_is_rejected_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        BroadcastDegradation(**wrong)
