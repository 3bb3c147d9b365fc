import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_data import make_predictions
from scipy.stats import binomtest

from cls_data import Predictions
from cls_report.errors import ReportError
from cls_report.statistics.comparison import Comparison, compare, pair_predictions
from cls_report.statistics.paired_tests import (
    holm_adjust,
    mcnemar_test,
    required_images,
    sign_flip_test,
)


def compared(
    first: Predictions, second: Predictions, names: tuple[str, str] = ("a", "b")
) -> Comparison:
    return compare(pair_predictions("valid", first, second), names)


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_test_equals_a_binomial_test_of_the_discordant_images(
    only_first: int, only_second: int
) -> None:
    discordant = only_first + only_second
    expected = binomtest(only_first, discordant).pvalue if discordant else 1.0
    assert mcnemar_test(only_first, only_second) == pytest.approx(expected)


def test_equal_models_differ_significantly_in_at_most_one_of_twenty_cases() -> None:
    generator = np.random.default_rng(0)
    false_alarms = clustered_false_alarms = 0
    for _ in range(2000):
        gains = generator.choice([-1, 0, 1], p=[0.08, 0.84, 0.08], size=200)
        false_alarms += mcnemar_test(int((gains < 0).sum()), int((gains > 0).sum())) < 0.05
    for _ in range(200):
        # All images of a cluster change in the same direction.
        sums = generator.choice([-1.0, 1.0], size=30) * generator.integers(1, 6, 30)
        clustered_false_alarms += sign_flip_test(sums) < 0.05
    assert false_alarms / 2000 <= 0.05
    assert clustered_false_alarms / 200 <= 0.05 + 3 * (0.05 * 0.95 / 200) ** 0.5


def test_required_images_detect_the_difference_in_four_of_five_cases() -> None:
    required = required_images(300, 15, 30)
    assert required is not None
    generator = np.random.default_rng(0)
    detected = 0
    for _ in range(1000):
        first, second, _ = generator.multinomial(required, [0.05, 0.1, 0.85])
        detected += mcnemar_test(int(first), int(second)) < 0.05
    assert 0.72 < detected / 1000 < 0.88  # the exact test is more conservative than the formula


def test_holm_adjusts_p_values_by_their_rank() -> None:
    assert holm_adjust([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm_adjust([0.5, 0.9]) == [1.0, 1.0]
    assert holm_adjust([]) == []


def test_identical_runs_have_no_required_number_of_images() -> None:
    assert required_images(300, 4, 4) is None
    same = make_predictions()
    comparison = compared(same, same)
    assert comparison.overall.p == 1
    assert "Not distinguishable on 60 images: a " in comparison.verdict
    assert "no number of images" in comparison.verdict


def test_verdict_names_the_better_run() -> None:
    weak = make_predictions(images=400, seed=1)
    logits = weak.logits.copy()
    logits[np.arange(400), weak.labels] += 2
    comparison = compared(weak, dataclasses.replace(weak, logits=logits), ("old", "new"))
    assert comparison.verdict.startswith("new is better: old ")
    assert comparison.overall.difference.low > 0
    assert comparison.overall.only_first == 0


def test_verdict_states_the_required_images_for_a_small_difference() -> None:
    first = make_predictions(images=300, seed=1)
    logits = first.logits.copy()
    logits[[0, 1, 2]] = -logits[[0, 1, 2]]
    comparison = compared(first, dataclasses.replace(first, logits=logits))
    assert comparison.verdict.startswith("Not distinguishable on 300 images: a ")
    assert "Detecting a difference this small takes about" in comparison.verdict


def test_classes_and_slices_have_adjusted_p_values() -> None:
    comparison = compared(make_predictions(200, 1), make_predictions(200, 2))
    assert all(each.adjusted_p >= each.p for each in comparison.by_class)
    assert set(comparison.by_slice) == {"blur", "game", "shorter side (px)"}
    assert sum(each.images for each in comparison.by_slice["game"]) == 200


def test_pairing_does_not_depend_on_the_order_of_images_and_classes() -> None:
    first, second = make_predictions(seed=1), make_predictions(seed=2)
    order = np.random.default_rng(0).permutation(len(second))
    columns = [2, 0, 3, 1]
    shuffled = dataclasses.replace(
        second,
        **{name: getattr(second, name)[order] for name in ("ids", "groups", "metadata", "sizes")},
        labels=np.argsort(columns)[second.labels[order]],
        logits=second.logits[order][:, columns],
        classes=second.classes[columns],
    )
    assert compared(first, shuffled).overall == compared(first, second).overall


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"ids": np.array([f"valid/{row:03}.png" for row in range(1, 61)])},
            r"different images: 1 image\(s\) only in the first run \('valid/000.png'\); "
            r"1 .* second run \('valid/060.png'\)",
        ),
        (
            {"classes": np.array(["0", "00", "23", "8"])},
            r"different classes: 1 class\(es\) only in the first run \('7'\)",
        ),
        ({"labels": np.zeros(60, np.int64)}, r"different labels in the two runs, .* valid/00"),
    ],
)
def test_pairing_names_the_difference_of_incompatible_runs(
    changed: dict[str, np.ndarray], message: str
) -> None:
    with pytest.raises(ReportError, match=message):
        pair_predictions("valid", make_predictions(), make_predictions(**changed))


def test_comparison_of_clustered_images_tests_clusters() -> None:
    groups = np.repeat(np.arange(10), 20).astype(str)
    first = make_predictions(images=200, seed=1, groups=groups)
    logits = first.logits.copy()
    logits[:20] = -10
    logits[np.arange(20), first.labels[:20]] = 10  # only one cluster improves
    comparison = compared(first, dataclasses.replace(first, logits=logits))
    assert comparison.overall.p > 0.05
    assert comparison.overall.design_effect > 2
