from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cls_data import DataError, balancing_weights, class_to_idx, read_split
from cls_data.classes import label_indices


def test_classes_are_sorted_as_strings(root: Path) -> None:
    assert class_to_idx(read_split(root, "train")) == {"1": 0, "10": 1, "2": 2}


def test_a_label_that_train_never_saw_is_named(root: Path) -> None:
    text = '{"image": "0.png", "suffix": "1"}\n{"image": "1.png", "suffix": "99"}\n'
    (root / "valid" / "annotations.jsonl").write_text(text)
    classes = class_to_idx(read_split(root, "train"))
    with pytest.raises(DataError, match=r"valid/annotations.jsonl:2: label '99'(.|\n)*add training images"):
        label_indices(read_split(root, "valid"), classes)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60))
def test_balancing_weights_average_to_one_and_give_every_class_an_equal_share(labels: list[int]) -> None:
    tensor = torch.tensor(labels)
    weights = balancing_weights(tensor, 5)
    shares = torch.zeros(5).index_add(0, tensor, weights[tensor])
    present = torch.bincount(tensor, minlength=5) > 0
    assert torch.allclose(shares[present], shares[present][0])
    assert torch.all(weights[~present] == 0)
    if present.all():
        assert weights[tensor].mean() == pytest.approx(1)
