import dataclasses

import numpy as np
import pytest
from drawn import drawn_predictions
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from cls_report.errors import ReportError
from cls_report.statistics.comparison import compare
from cls_report.statistics.paired_tests import mcnemar, needed_images, sign_flip
from cls_report.statistics.pairing import pair


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemars_exact_test_is_a_binomial_test_of_the_images_that_part_the_runs(
    one: int, other: int
) -> None:
    expected = binomtest(one, one + other).pvalue if one + other else 1.0
    assert mcnemar(one, other) == pytest.approx(expected)


def test_equal_runs_are_told_apart_in_at_most_one_of_twenty_cases() -> None:
    draws = np.random.default_rng(0)
    alarms = grouped = 0
    for _ in range(2000):
        gains = draws.choice([-1, 0, 1], p=[0.08, 0.84, 0.08], size=200)
        alarms += mcnemar(int((gains < 0).sum()), int((gains > 0).sum())) < 0.05
    for _ in range(200):
        sums = draws.choice([-1.0, 1.0], size=30) * draws.integers(
            1, 6, 30
        )  # images of a group go one way
        grouped += sign_flip(sums) < 0.05
    assert alarms / 2000 <= 0.05
    assert grouped / 200 <= 0.05 + 3 * (0.05 * 0.95 / 200) ** 0.5


def test_as_many_images_as_are_said_to_be_needed_show_the_difference_in_four_of_five_tries() -> (
    None
):
    needed = needed_images(300, 15, 30)
    assert needed is not None
    draws = np.random.default_rng(0)
    found = 0
    for _ in range(1000):
        first, second, _ = draws.multinomial(needed, [0.05, 0.1, 0.85])
        found += mcnemar(int(first), int(second)) < 0.05
    assert 0.72 < found / 1000 < 0.88  # the exact test is a little stricter than the formula's


def test_runs_that_never_part_need_no_number_of_images() -> None:
    assert needed_images(300, 4, 4) is None
    same = drawn_predictions()
    found = compare(pair(same, same), ("a", "b"))
    assert found.overall.p == 1
    assert not found.distinguishable
    assert "Not distinguishable on 60 images: a " in found.verdict
    assert "no number of images" in found.verdict


def test_a_run_that_is_better_is_called_so() -> None:
    weak = drawn_predictions(images=400, seed=1)
    logits = weak.logits.copy()
    logits[np.arange(400), weak.labels] += 2
    found = compare(pair(weak, dataclasses.replace(weak, logits=logits)), ("old", "new"))
    assert found.verdict.startswith("new is better: old ")
    assert found.overall.difference.low > 0
    assert found.overall.only_first == 0


def test_a_small_difference_is_not_called_one_and_says_how_many_images_it_takes() -> None:
    first = drawn_predictions(images=300, seed=1)
    logits = first.logits.copy()
    logits[[0, 1, 2]] = -logits[[0, 1, 2]]
    found = compare(pair(first, dataclasses.replace(first, logits=logits)), ("a", "b"))
    assert found.verdict.startswith("Not distinguishable on 300 images: a ")
    assert "would be needed" in found.verdict


def test_parts_are_compared_with_their_number_in_mind() -> None:
    found = compare(pair(drawn_predictions(200, 1), drawn_predictions(200, 2)))
    assert all(each.adjusted_p >= each.p for each in found.by_class)
    assert set(found.by_slice) == {"blur", "game", "shorter side, px"}
    assert sum(each.images for each in found.by_slice["game"]) == 200


def test_images_in_another_order_and_classes_too_are_paired_all_the_same() -> None:
    first, second = drawn_predictions(seed=1), drawn_predictions(seed=2)
    order = np.random.default_rng(0).permutation(len(second))
    columns = [2, 0, 3, 1]
    moved = dataclasses.replace(
        second,
        **{name: getattr(second, name)[order] for name in ("ids", "groups", "metadata", "sizes")},
        labels=np.argsort(columns)[second.labels[order]],
        logits=second.logits[order][:, columns],
        classes=second.classes[columns],
    )
    assert compare(pair(first, moved)).overall == compare(pair(first, second)).overall


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"ids": np.array([f"valid/{row:03}.png" for row in range(1, 61)])},
            r"different images.*1 image\(s\) of the first alone \('valid/000.png'\); 1 .* alone \('valid/060.png'\)",
        ),
        (
            {"classes": np.array(["0", "00", "23", "8"])},
            r"different classes: 1 class\(es\) of the first alone \('7'\)",
        ),
        ({"labels": np.zeros(60, np.int64)}, r"labeled otherwise in the second run, valid/00"),
    ],
)
def test_what_cannot_be_paired_is_refused_by_name(
    changed: dict[str, np.ndarray], said: str
) -> None:
    with pytest.raises(ReportError, match=said):
        pair(drawn_predictions(), drawn_predictions(**changed))


def test_groups_are_what_the_test_draws() -> None:
    first = drawn_predictions(images=200, seed=1, groups=np.repeat(np.arange(10), 20).astype(str))
    logits = first.logits.copy()
    logits[:20] = -10
    logits[np.arange(20), first.labels[:20]] = 10  # one whole group is gained, which says little
    found = compare(pair(first, dataclasses.replace(first, logits=logits)))
    assert found.overall.p > 0.05
    assert found.overall.design_effect > 2
