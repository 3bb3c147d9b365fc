import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_data import make_evaluated

from cls_report.statistics.evaluated_predictions import EvaluatedPredictions
from cls_report.statistics.intervals import Clusters
from cls_report.statistics.scores import compute_scores


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(2, 6))
def test_scores_match_their_definitions(seed: int, images: int, classes: int) -> None:
    evaluated = make_evaluated(images, seed, classes, skill=1.0)
    scores = compute_scores(evaluated)
    labels, predicted = evaluated.labels, evaluated.predicted
    assert scores.top1.value == pytest.approx((labels == predicted).mean())
    precision, recall, f1 = [], [], []
    for index in range(classes):
        hits = int(((labels == index) & (predicted == index)).sum())
        support, answered = int((labels == index).sum()), int((predicted == index).sum())
        if support + answered:
            precision.append(hits / answered if answered else 0)
            recall.append(hits / support if support else 0)
            f1.append(2 * hits / (support + answered))
        of_class = scores.by_class[index]
        assert (of_class.support, of_class.answered) == (support, answered)
        assert of_class.recall.value == (pytest.approx(hits / support) if support else None)
        assert of_class.precision.value == (pytest.approx(hits / answered) if answered else None)
        assert of_class.f1.value == (
            pytest.approx(2 * hits / (support + answered)) if support + answered else None
        )
    assert scores.macro_precision.value == pytest.approx(np.mean(precision))
    assert scores.macro_recall.value == pytest.approx(np.mean(recall))
    assert scores.macro_f1.value == pytest.approx(np.mean(f1))
    label_log_probabilities = evaluated.log_probabilities[np.arange(images), labels]
    assert scores.loss.value == pytest.approx(-label_log_probabilities.mean())


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 30))
def test_auroc_is_the_share_of_correctly_ordered_pairs(seed: int, images: int) -> None:
    evaluated = make_evaluated(images, seed, 3, skill=0.5)
    rounded = np.round(evaluated.log_probabilities, 1)  # with ties, which count half
    areas = []
    for index in np.unique(evaluated.labels):
        positive = rounded[evaluated.labels == index, index]
        negative = rounded[evaluated.labels != index, index]
        if len(negative):
            is_above = positive[:, None] > negative
            is_tied = positive[:, None] == negative
            areas.append(np.mean(is_above + 0.5 * is_tied))
    auroc = compute_scores(dataclasses.replace(evaluated, log_probabilities=rounded)).auroc
    assert auroc.value == (pytest.approx(np.mean(areas)) if areas else None)


def test_top_5_contains_the_label_among_the_five_most_probable_classes() -> None:
    probabilities = np.array([[0.3, 0.2, 0.18, 0.15, 0.1, 0.07]] * 2)
    evaluated = EvaluatedPredictions(
        labels=np.array([4, 5]),
        predicted=np.zeros(2, np.int64),
        log_probabilities=np.log(probabilities),
        classes=tuple("abcdef"),
        clusters=Clusters(np.arange(2), 2),
    )
    assert evaluated.in_top_k(5).tolist() == [True, False]


def test_scores_of_a_single_class_have_no_value_where_undefined() -> None:
    evaluated = make_evaluated(10, 1, classes=2)
    scores = compute_scores(dataclasses.replace(evaluated, labels=np.zeros(10, np.int64)))
    assert scores.auroc.value is None
    assert scores.by_class[1].recall.value is None
    assert scores.top1.value is not None


def test_scores_of_one_image_are_computed() -> None:
    assert compute_scores(make_evaluated(1, 3)).images == 1
