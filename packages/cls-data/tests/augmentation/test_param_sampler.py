import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cls_data import ParamSampler


@given(low=st.floats(-10, 10), span=st.floats(0, 20), seed=st.integers(0, 2**63 - 1))
def test_uniform_values_lie_in_the_range(low: float, span: float, seed: int) -> None:
    values = ParamSampler(50, seed, "op").uniform(low, low + span)
    assert values.dtype == np.float32
    assert low - 1e-5 <= values.min() <= values.max() <= low + span + 1e-5


def test_later_draws_do_not_depend_on_the_arguments_of_earlier_draws() -> None:
    first = ParamSampler(50, 0, "op")
    second = ParamSampler(50, 0, "op")
    first.uniform(0, 1)
    second.bernoulli(0)
    assert np.array_equal(first.uniform(0, 1), second.uniform(0, 1))


def test_log_uniform_halves_as_often_as_it_doubles() -> None:
    factors = ParamSampler(20_000, 0, "op").log_uniform(0.5, 2)
    assert 0.499 <= factors.min() <= factors.max() <= 2.001
    assert (factors < 1).mean() == pytest.approx(0.5, abs=0.02)


def test_bernoulli_is_never_true_at_probability_0_and_always_true_at_1() -> None:
    sampler = ParamSampler(20_000, 0, "op")
    assert not sampler.bernoulli(0).any()
    assert sampler.bernoulli(1).all()
    assert sampler.bernoulli(0.3).mean() == pytest.approx(0.3, abs=0.02)


def test_streams_differ_by_seed_and_by_name() -> None:
    values = set()
    for seed in (0, 1, 2**32, 2**63 - 1):
        for stream in ("", "blur", "color", "colors"):
            values.add(int(ParamSampler(1, seed, stream).seeds()[0]))
    assert len(values) == 16
    assert all(0 <= value < 2**62 for value in values)


def test_draws_are_the_same_in_every_release() -> None:
    """A changed value would change the augmentation of a resumed run."""
    values = ParamSampler(2, 2**40 + 7, "color").uniform(0, 1)
    assert values.tolist() == pytest.approx([0.371762, 0.654177], abs=1e-6)
