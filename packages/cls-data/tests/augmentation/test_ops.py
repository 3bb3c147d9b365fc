from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cls_data.augmentation.ops import change_selected


@pytest.fixture
def images() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (4, 3, 24, 16), generator=generator).float()


@pytest.mark.parametrize("selected", [[], [2], [0, 3], [0, 1, 2, 3]])
def test_change_selected_changes_only_the_selected_images(
    images: Tensor, selected: list[int]
) -> None:
    def darken(some: Tensor, row: Any) -> Tensor:
        return some - 1000 * torch.from_numpy(row + 1)[:, None, None, None]

    mask = np.isin(np.arange(4), selected)
    changed = change_selected(images.clone(), mask, darken, row=np.arange(4))
    for row in range(4):
        difference = 1000 * (row + 1) if row in selected else 0
        assert torch.equal(changed[row], images[row] - difference)
