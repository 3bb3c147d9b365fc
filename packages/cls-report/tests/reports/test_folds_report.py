import dataclasses

import numpy as np
import pytest
from report_data import MakeRun, make_predictions

from cls_data import Predictions
from cls_report.errors import ReportError
from cls_report.reports.folds_report import build_folds_report, find_label_errors, pool_folds
from cls_report.statistics.evaluated_predictions import EvaluatedPredictions


def subset(predictions: Predictions, rows: slice | np.ndarray) -> Predictions:
    names = ("ids", "labels", "logits", "groups", "metadata", "sizes")
    selected = {name: getattr(predictions, name)[rows] for name in names}
    return dataclasses.replace(predictions, **selected)


def test_folds_are_pooled_in_their_order(make_run: MakeRun) -> None:
    predictions = make_predictions(images=60)
    runs = []
    for fold in (0, 1):
        rows = slice(30 * fold, 30 * fold + 30)
        runs.append(make_run(f"fold{fold}", 1, subset(predictions, rows), fold=fold, folds=2))
    pooled = pool_folds(runs)
    assert pooled.ids.tolist() == predictions.ids.tolist()
    assert np.array_equal(pooled.logits, predictions.logits)
    report = build_folds_report(runs)
    assert report.title == "2 folds"
    assert [section.key for section in report.sections][:3] == ["summary", "labels", "classes"]


def test_pooling_rejects_runs_that_are_not_all_folds_of_one_data_set(make_run: MakeRun) -> None:
    first, plain = make_run("fold0", fold=0, folds=2), make_run("plain")
    with pytest.raises(
        ReportError, match=r"plain: not a fold \(data.fold is not set\); to train the folds"
    ):
        pool_folds([first, plain])
    with pytest.raises(ReportError, match=r"each of the folds 0 to 1 once, got \[0, 0\]"):
        pool_folds([first, make_run("again", fold=0, folds=2)])
    with pytest.raises(ReportError, match=r"differ in more than the fold: data.sampler"):
        pool_folds([first, make_run("fold1", fold=1, folds=2, sampler="weighted")])


def test_swapped_labels_rank_first_among_the_label_errors() -> None:
    pytest.importorskip("cleanlab")
    predictions = make_predictions(images=400)
    confident = predictions.logits.copy()
    confident[np.arange(400), predictions.labels] += 6
    wrong = np.arange(0, 400, 40)
    labels = predictions.labels.copy()
    labels[wrong] = (labels[wrong] + 1) % 4
    changed = dataclasses.replace(predictions, logits=confident, labels=labels)
    rows = find_label_errors(EvaluatedPredictions.from_predictions(changed))
    assert set(rows[: len(wrong)]) == set(wrong)


def test_find_label_errors_accepts_a_class_without_rows() -> None:
    pytest.importorskip("cleanlab")
    predictions = make_predictions(images=200)
    has_rows = predictions.labels != 2
    evaluated = EvaluatedPredictions.from_predictions(subset(predictions, has_rows))
    assert len(find_label_errors(evaluated)) < has_rows.sum()
