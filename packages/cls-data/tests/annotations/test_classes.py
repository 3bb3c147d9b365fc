from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cls_data import (
    DataError,
    balancing_weights,
    class_to_idx,
    effective_number_weights,
    read_split,
)
from cls_data.annotations.classes import label_indices, weights_of


def test_classes_are_sorted_as_strings(root: Path) -> None:
    assert class_to_idx(read_split(root, "train")) == {"1": 0, "10": 1, "2": 2}


def test_a_label_that_train_never_saw_is_named(root: Path) -> None:
    text = '{"image": "0.png", "suffix": "1"}\n{"image": "1.png", "suffix": "99"}\n'
    (root / "valid" / "annotations.jsonl").write_text(text)
    classes = class_to_idx(read_split(root, "train"))
    with pytest.raises(
        DataError, match=r"valid/annotations.jsonl:2: label '99'(.|\n)*add training images"
    ):
        label_indices(read_split(root, "valid"), classes)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60))
def test_balancing_weights_average_to_one_and_give_every_class_an_equal_share(
    labels: list[int],
) -> None:
    tensor = torch.tensor(labels)
    weights = balancing_weights(tensor, 5)
    shares = torch.zeros(5).index_add(0, tensor, weights[tensor])
    present = torch.bincount(tensor, minlength=5) > 0
    assert torch.allclose(shares[present], shares[present][0])
    assert torch.all(weights[~present] == 0)
    if present.all():
        assert weights[tensor].mean() == pytest.approx(1)


_labels = st.lists(st.integers(0, 4), min_size=1, max_size=60)


@given(_labels, st.floats(0, 0.999999))
def test_effective_number_weights_average_to_one_and_leave_absent_classes_out(
    labels: list[int], beta: float
) -> None:
    tensor = torch.tensor(labels)
    weights = effective_number_weights(tensor, 5, beta)
    assert weights.dtype == torch.float32
    assert weights[tensor].mean() == pytest.approx(1, rel=1e-5)
    assert torch.equal(weights > 0, torch.bincount(tensor, minlength=5) > 0)


@given(_labels, st.floats(0.1, 0.99))
def test_effective_number_weights_are_in_the_ratio_of_the_paper(
    labels: list[int], beta: float
) -> None:
    tensor = torch.tensor(labels)
    counts = torch.bincount(tensor, minlength=5)
    weights = effective_number_weights(tensor, 5, beta)
    effective = (1 - beta ** counts.double()) / (1 - beta)
    products = (weights * effective)[counts > 0]
    assert torch.allclose(products, products[0], rtol=1e-4)


@given(_labels)
def test_effective_number_weights_lie_between_none_and_balanced(labels: list[int]) -> None:
    tensor = torch.tensor(labels)
    present = torch.bincount(tensor, minlength=5) > 0
    assert torch.allclose(
        effective_number_weights(tensor, 5, 0)[present], torch.ones(int(present.sum()))
    )
    balanced = balancing_weights(tensor, 5)
    balanced /= balanced[tensor].mean()
    for nearly_one in (1 - 1e-6, 1 - 1e-12, 1 - 2**-53):
        assert torch.allclose(effective_number_weights(tensor, 5, nearly_one), balanced, rtol=1e-3)


def test_weights_given_by_name_come_in_index_order() -> None:
    weights = weights_of({"2": 0.5, "1": 3, "10": 0}, {"1": 0, "10": 1, "2": 2})
    assert torch.equal(weights, torch.tensor([3, 0, 0.5]))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"1": 1, "2": 1}, "missing or unknown: '10'"),
        ({"1": 1, "2": 1, "10": 1, "77": 1}, "missing or unknown: '77'"),
        ({"1": 0, "2": 0, "10": 0}, "all 0"),
    ],
)
def test_weights_for_other_classes_than_those_of_train_are_refused(
    given: dict[str, float], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        weights_of(given, {"1": 0, "10": 1, "2": 2})
