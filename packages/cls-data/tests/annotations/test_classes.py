from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cls_data import (
    DataError,
    balancing_weights,
    build_class_to_idx,
    effective_number_weights,
    read_split,
)
from cls_data.annotations.class_tensors import encode_labels, sampling_weights_tensor


def test_build_class_to_idx_sorts_labels_as_strings(root: Path) -> None:
    assert build_class_to_idx(read_split(root, "train")) == {"1": 0, "10": 1, "2": 2}


def test_encode_labels_rejects_labels_that_train_lacks(root: Path) -> None:
    text = '{"image": "0.png", "suffix": "1"}\n{"image": "1.png", "suffix": "99"}\n'
    (root / "valid" / "annotations.jsonl").write_text(text)
    classes = build_class_to_idx(read_split(root, "train"))
    with pytest.raises(
        DataError, match=r"valid/annotations.jsonl:2: label '99'(.|\n)*Add training images"
    ):
        encode_labels(read_split(root, "valid"), classes)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60))
def test_balancing_weights_have_mean_one_and_equalize_classes(labels: list[int]) -> None:
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
def test_effective_number_weights_have_mean_one_and_are_zero_for_absent_classes(
    labels: list[int], beta: float
) -> None:
    tensor = torch.tensor(labels)
    weights = effective_number_weights(tensor, 5, beta)
    assert weights.dtype == torch.float32
    assert weights[tensor].mean() == pytest.approx(1, rel=1e-5)
    assert torch.equal(weights > 0, torch.bincount(tensor, minlength=5) > 0)


@given(_labels, st.floats(0.1, 0.99))
def test_effective_number_weights_match_the_formula_of_the_paper(
    labels: list[int], beta: float
) -> None:
    tensor = torch.tensor(labels)
    counts = torch.bincount(tensor, minlength=5)
    weights = effective_number_weights(tensor, 5, beta)
    effective = (1 - beta ** counts.double()) / (1 - beta)
    products = (weights * effective)[counts > 0]
    assert torch.allclose(products, products[0], rtol=1e-4)


@given(_labels)
def test_effective_number_weights_approach_uniform_and_balanced_at_the_limits_of_beta(
    labels: list[int],
) -> None:
    tensor = torch.tensor(labels)
    present = torch.bincount(tensor, minlength=5) > 0
    assert torch.allclose(
        effective_number_weights(tensor, 5, 0)[present], torch.ones(int(present.sum()))
    )
    balanced = balancing_weights(tensor, 5)
    balanced /= balanced[tensor].mean()
    for beta_near_one in (1 - 1e-6, 1 - 1e-12, 1 - 2**-53):
        assert torch.allclose(
            effective_number_weights(tensor, 5, beta_near_one), balanced, rtol=1e-3
        )


def test_sampling_weights_tensor_is_in_index_order() -> None:
    weights = sampling_weights_tensor({"2": 0.5, "1": 3, "10": 0}, {"1": 0, "10": 1, "2": 2})
    assert torch.equal(weights, torch.tensor([3, 0, 0.5]))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"1": 1, "2": 1}, "Missing or unknown: '10'"),
        ({"1": 1, "2": 1, "10": 1, "77": 1}, "Missing or unknown: '77'"),
        ({"1": 0, "2": 0, "10": 0}, "all 0"),
    ],
)
def test_sampling_weights_tensor_rejects_missing_unknown_and_zero_weights(
    given: dict[str, float], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        sampling_weights_tensor(given, {"1": 0, "10": 1, "2": 2})
