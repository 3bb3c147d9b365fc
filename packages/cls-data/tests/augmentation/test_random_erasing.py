import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cls_data import ParamSampler, RandomErasing
from cls_data.augmentation.random_erasing import erase


@given(area=st.floats(0.02, 0.4), ratio=st.floats(0, 1), left=st.floats(0, 1), top=st.floats(0, 1))
@settings(deadline=None)
def test_erase_fills_one_rectangle_of_the_given_area(
    area: float, ratio: float, left: float, top: float
) -> None:
    images = torch.zeros(1, 3, 100, 100)
    erased = erase(
        images,
        area=np.array([area], np.float32),
        ratio=np.array([ratio], np.float32),
        left=np.array([left], np.float32),
        top=np.array([top], np.float32),
        level=np.array([9], np.float32),
    )
    filled = erased[0, 0] == 9
    rows = filled.any(dim=1).sum()
    columns = filled.any(dim=0).sum()
    assert filled.sum() == rows * columns
    assert float(rows * columns) / 10_000 == pytest.approx(area, abs=0.02)
    relative_width = columns / (100 * math.sqrt(area))
    assert 1 / math.sqrt(2) - 0.1 <= relative_width <= math.sqrt(2) + 0.1
    assert torch.equal(erased, torch.where(filled, 9.0, images))


def test_random_erasing_changes_samples_with_the_given_probability() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2000, 3, 24, 16), generator=generator).float()
    op = RandomErasing(probability=0.25, area=(0.2, 0.3))
    changed = op.apply(images.clone(), op.draw(ParamSampler(2000, 0, "erasing")))
    erased = (changed != images).flatten(1).any(dim=1)
    assert float(erased.float().mean()) == pytest.approx(0.25, abs=0.03)
