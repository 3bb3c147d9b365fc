from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cls_data.augmentation.gaussian_noise import gaussian_noise, hashed_noise
from cls_data.augmentation.random_streams import ParamSampler

ON_CPU = torch.empty(0)
Noise = Callable[..., torch.Tensor]

both_ways = pytest.mark.parametrize("draw", [gaussian_noise, hashed_noise])


@both_ways
def test_noise_is_standard_normal_within_and_across_samples(draw: Noise) -> None:
    noise = draw(4001, ParamSampler(500, 7, "noise").seeds(), ON_CPU)
    assert noise.shape == (500, 4001)
    for values in (noise, noise.T):
        assert values.mean(dim=1).abs().max() < 5 / values.shape[1] ** 0.5
        assert (values.std(dim=1) - 1).abs().max() < 5 / (2 * values.shape[1]) ** 0.5
    fourth_moment = (noise**4).mean()
    assert abs(fourth_moment - 3) < 0.05
    tails = (noise.abs() > 3).float().mean()
    assert abs(tails - 0.0027) < 0.0005


@both_ways
def test_samples_and_neighboring_positions_are_uncorrelated(draw: Noise) -> None:
    noise = draw(6000, ParamSampler(200, 3, "noise").seeds(), ON_CPU)
    correlations = torch.corrcoef(noise) - torch.eye(200)
    assert correlations.abs().max() < 5.5 / 6000**0.5
    for distance in (1, 2, 3000):
        products = noise[:, distance:] * noise[:, :-distance]
        assert abs(products.mean()) < 5 / products.numel() ** 0.5


@both_ways
@given(seeds=st.lists(st.integers(0, 2**62 - 1), min_size=1, max_size=6), length=st.integers(1, 50))
def test_the_noise_of_a_sample_depends_only_on_its_seed(
    draw: Noise, seeds: list[int], length: int
) -> None:
    noise = draw(length, np.array(seeds), ON_CPU)
    assert noise.isfinite().all()
    for row, seed in enumerate(seeds):
        alone = draw(length, np.array([seed]), ON_CPU)
        torch.testing.assert_close(noise[row], alone[0], rtol=1e-5, atol=1e-5)
