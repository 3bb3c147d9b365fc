import dataclasses

import numpy as np
import pytest
from drawn import MakeRun, drawn_predictions

from cls_data import Predictions
from cls_report.errors import ReportError
from cls_report.reports.folds_report import folds_report, label_suspects, pooled


def part(whole: Predictions, rows: slice) -> Predictions:
    names = ("ids", "labels", "logits", "groups", "metadata", "sizes")
    return dataclasses.replace(whole, **{name: getattr(whole, name)[rows] for name in names})


def test_folds_are_pooled_in_their_order(make_run: MakeRun) -> None:
    whole = drawn_predictions(images=60)
    runs = [
        make_run(
            f"fold{fold}", 1, part(whole, slice(30 * fold, 30 * fold + 30)), fold=fold, folds=2
        )
        for fold in (0, 1)
    ]
    found = pooled(runs)
    assert found.ids.tolist() == whole.ids.tolist()
    assert np.array_equal(found.logits, whole.logits)
    report = folds_report(runs)
    assert report.title == "2 folds"
    assert [section.key for section in report.sections][:3] == ["summary", "labels", "classes"]


def test_what_is_not_all_folds_of_one_set_is_refused(make_run: MakeRun) -> None:
    first, plain = make_run("fold0", fold=0, folds=2), make_run("plain")
    with pytest.raises(
        ReportError, match=r"not a fold \(data.fold was not set\): .*plain; the folds come from"
    ):
        pooled([first, plain])
    with pytest.raises(ReportError, match=r"expected the folds 0 to 1 once each, got \[0, 0\]"):
        pooled([first, make_run("again", fold=0, folds=2)])
    with pytest.raises(ReportError, match=r"differ in more than the fold: data.sampler"):
        pooled([first, make_run("fold1", fold=1, folds=2, sampler="weighted")])


def test_labels_that_were_swapped_are_suspected_first() -> None:
    pytest.importorskip("cleanlab")
    whole = drawn_predictions(images=400)
    sure = whole.logits.copy()
    sure[np.arange(400), whole.labels] += 6
    wrong = np.arange(0, 400, 40)
    labels = whole.labels.copy()
    labels[wrong] = (labels[wrong] + 1) % 4
    found = label_suspects(dataclasses.replace(whole, logits=sure, labels=labels))
    assert set(found[: len(wrong)]) == set(wrong)


def test_a_class_without_a_row_does_not_keep_label_errors_from_being_found() -> None:
    pytest.importorskip("cleanlab")
    whole = drawn_predictions(images=200)
    kept = whole.labels != 2
    found = label_suspects(part(whole, kept))  # type: ignore[arg-type]  # a mask takes rows as a slice does
    assert len(found) < kept.sum()
