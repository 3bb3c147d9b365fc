import numpy as np
import pytest
from drawn import drawn_answers
from hypothesis import given, settings
from hypothesis import strategies as st

from cls_report.statistics.evaluated import Answers, in_top
from cls_report.statistics.intervals import Clusters
from cls_report.statistics.scores import score


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(2, 6))
def test_every_figure_is_what_its_definition_says(seed: int, images: int, classes: int) -> None:
    answers = drawn_answers(images, seed, classes, skill=1.0)
    found = score(answers)
    truth, said = answers.truth, answers.answer
    assert found.top1.value == pytest.approx((truth == said).mean())
    precision, recall, f1 = [], [], []
    for index in range(classes):
        hits = int(((truth == index) & (said == index)).sum())
        support, answered = int((truth == index).sum()), int((said == index).sum())
        if support + answered:
            precision.append(hits / answered if answered else 0)
            recall.append(hits / support if support else 0)
            f1.append(2 * hits / (support + answered))
        own = found.by_class[index]
        assert (own.support, own.answered) == (support, answered)
        assert own.recall.value == (pytest.approx(hits / support) if support else None)
        assert own.precision.value == (pytest.approx(hits / answered) if answered else None)
        assert own.f1.value == (
            pytest.approx(2 * hits / (support + answered)) if support + answered else None
        )
    assert found.macro_precision.value == pytest.approx(np.mean(precision))
    assert found.macro_recall.value == pytest.approx(np.mean(recall))
    assert found.macro_f1.value == pytest.approx(np.mean(f1))
    own_logs = answers.log_probabilities[np.arange(images), truth]
    assert found.loss.value == pytest.approx(-own_logs.mean())


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 30))
def test_auroc_is_the_share_of_pairs_in_the_right_order(seed: int, images: int) -> None:
    answers = drawn_answers(images, seed, 3, skill=0.5)
    rounded = np.round(answers.log_probabilities, 1)  # with ties, which count half
    areas = []
    for index in np.unique(answers.truth):
        positive = rounded[answers.truth == index, index]
        negative = rounded[answers.truth != index, index]
        if len(negative):
            areas.append(
                np.mean((positive[:, None] > negative) + 0.5 * (positive[:, None] == negative))
            )
    found = score(
        Answers(answers.truth, answers.answer, rounded, answers.classes, answers.clusters)
    ).auroc
    assert found.value == (pytest.approx(np.mean(areas)) if areas else None)


def test_top5_counts_the_truth_among_the_five_likeliest() -> None:
    logs = np.log(np.array([[0.3, 0.2, 0.18, 0.15, 0.1, 0.07]] * 2))
    answers = Answers(
        np.array([4, 5]), np.zeros(2, np.int64), logs, tuple("abcdef"), Clusters(np.arange(2), 2)
    )
    assert in_top(answers, 5).tolist() == [True, False]


def test_one_class_only_has_figures_where_they_mean_something() -> None:
    answers = drawn_answers(10, 1, classes=2)
    same = Answers(
        np.zeros(10, np.int64),
        answers.answer,
        answers.log_probabilities,
        answers.classes,
        answers.clusters,
    )
    found = score(same)
    assert found.auroc.value is None
    assert found.by_class[1].recall.value is None
    assert found.top1.value is not None


def test_one_image_has_figures_without_a_crash() -> None:
    found = score(drawn_answers(1, 3))
    assert found.images == 1
