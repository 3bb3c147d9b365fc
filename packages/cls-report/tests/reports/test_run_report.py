import json

import numpy as np
import pytest
from drawn import MakeRun, drawn_predictions
from PIL import Image

from cls_data import DataError, Predictions
from cls_export.contract.calibration import fit_temperature
from cls_report.errors import ReportError
from cls_report.page.blocks import Code, Confusion, Facts, Gallery, Report, Scores, Table, Text
from cls_report.page.thumbnails import Pictures
from cls_report.reports.run_report import run_report
from cls_report.run_folder import Run


def blocks(report: Report, key: str) -> tuple[object, ...]:
    return next(section.blocks for section in report.sections if section.key == key)


def test_a_report_says_what_the_run_left(make_run: MakeRun) -> None:
    run = make_run("a")
    (run.path / "metrics.csv").write_text(
        "epoch,step,lr,train_loss,valid_loss\n0,3,0.1,2.0,1.5\n1,6,0.05,1.0,\n"
    )
    (run.path / "origin.json").write_text(
        json.dumps({"arguments": ["seed=1", "run.name=a b"], "versions": {"torch": "2"}})
    )
    (run.path / "summary.json").write_text(
        json.dumps({"fit_seconds": 9.0, "warnings": ["a class is never predicted"]})
    )
    report = run_report(run)
    keys = [section.key for section in report.sections]
    assert keys == [
        "summary",
        "classes",
        "mistakes",
        "confidence",
        "slices",
        "training",
        "data",
        "cost",
        "reproduce",
    ]
    summary = blocks(report, "summary")
    assert isinstance(summary[0], Scores)
    assert summary[0].title == "valid: 60 images"
    warnings = [
        block.text for block in summary if isinstance(block, Text) and block.tone == "warning"
    ]
    assert warnings[0].startswith("There is no test split")
    assert warnings[1] == "a class is never predicted"
    command = next(block for block in blocks(report, "reproduce") if isinstance(block, Code))
    assert command.text == "uv run apps/train seed=1 'run.name=a b'"
    assert any(
        isinstance(block, Text) and "no commit holds" in block.text
        for block in blocks(report, "reproduce")
    )


def test_every_mistake_is_in_the_confusion_with_its_picture(make_run: MakeRun) -> None:
    run = make_run("a")
    report = run_report(run)
    confusion = next(block for block in blocks(report, "mistakes") if isinstance(block, Confusion))
    predictions = run.predictions["valid"]
    assert confusion.truth == tuple(predictions.labels)
    assert confusion.answer == tuple(predictions.logits.argmax(axis=1))
    assert confusion.names == tuple(predictions.ids)
    assert sorted(confusion.pictures) == list(range(60))
    gallery = next(block for block in blocks(report, "mistakes") if isinstance(block, Gallery))
    first = gallery.shown[0]
    probabilities = np.exp(predictions.logits) / np.exp(predictions.logits).sum(
        axis=1, keepdims=True
    )
    wrong = predictions.logits.argmax(axis=1) != predictions.labels
    surest = int(np.where(wrong, probabilities.max(axis=1), 0).argmax())
    assert first.lines[2] == predictions.ids[surest]
    assert first.lines[1] == f"{probabilities[surest].max():.1%} sure"


def test_grad_cam_stands_beside_the_mistake_that_it_explains(make_run: MakeRun) -> None:
    run = make_run("a")
    predictions = run.predictions["valid"]
    wrong = np.flatnonzero(predictions.logits.argmax(axis=1) != predictions.labels)
    maps = np.zeros((len(wrong), 4, 4), np.uint8)
    np.savez(run.path / "predictions/gradcam_valid.npz", ids=predictions.ids[wrong], maps=maps)
    gallery = next(
        block for block in blocks(run_report(run), "mistakes") if isinstance(block, Gallery)
    )
    assert all(shown.overlay is not None for shown in gallery.shown)


def test_a_calibrated_run_shows_both_confidences(make_run: MakeRun) -> None:
    run = make_run("a")
    predictions = run.predictions["valid"]
    calibration = fit_temperature(predictions.logits, predictions.labels)
    run.labels.model_copy(update={"calibration": calibration}).save(
        run.path / "labels_mapping.json"
    )
    (text, *charts) = blocks(run_report(Run.at(run.path)), "confidence")
    assert isinstance(text, Text)
    assert "uncalibrated" in text.text
    assert [series.name for series in charts[0].series] == [
        "as sure as right",
        "softmax",
        "calibrated",
    ]


def test_a_report_without_its_image_files_is_made_all_the_same(make_run: MakeRun) -> None:
    run = make_run("a")
    for path in run.root.rglob("*.png"):
        path.unlink()
    report = run_report(run)
    assert report.pictures == ()
    confusion = next(block for block in blocks(report, "mistakes") if isinstance(block, Confusion))
    assert set(confusion.pictures) == {-1}
    assert "60 of 60 images have no picture" in confusion.note


def test_a_class_without_images_and_a_run_without_mistakes_break_nothing(make_run: MakeRun) -> None:
    predictions = drawn_predictions(
        labels=np.zeros(60, np.int64), logits=np.tile(np.float32([9, 0, 0, 0]), (60, 1))
    )
    report = run_report(make_run("a", predictions=predictions))
    table = next(block for block in blocks(report, "classes") if isinstance(block, Table))
    recall = next(column for column in table.columns if column.title == "recall")
    assert [each.value for each in recall.values] == [1.0, None, None, None]
    assert any(
        isinstance(block, Text) and "every answer is right" in block.text
        for block in blocks(report, "mistakes")
    )


def test_what_is_no_run_or_was_not_evaluated_says_so(make_run: MakeRun) -> None:
    run = make_run("a")
    with pytest.raises(
        ReportError, match=r"no run lies here .*expected a folder such as runs/NAME"
    ):
        Run.at(run.path.parent)
    (run.path / "predictions/valid.npz").unlink()
    with pytest.raises(
        ReportError, match=r"has no predictions/ yet; uv run python -m cls_train.stages.evaluate"
    ):
        Run.at(run.path)


def test_a_predictions_file_that_was_cut_short_is_named(make_run: MakeRun) -> None:
    file = make_run("a").path / "predictions/valid.npz"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(DataError, match=r"valid\.npz: cut short"):
        Run.at(file.parents[1])


def test_pictures_stop_at_their_budget(tmp_path: object, make_run: MakeRun) -> None:
    run = make_run("a")
    names = list(map(str, run.predictions["valid"].ids))
    all_of_them = Pictures(run.root)
    assert [all_of_them.place(name) for name in names] == list(range(60))
    assert all_of_them.place(names[3]) == 3
    size = len(all_of_them.addresses[0]) * 3 // 4
    few = Pictures(run.root, budget=3 * size)
    assert [few.place(name) for name in names].count(-1) >= 56


def test_a_large_photograph_is_kept_small(tmp_path: object, make_run: MakeRun) -> None:
    run = make_run("a")
    Image.effect_noise((2000, 1500), 80).convert("RGB").save(run.root / "valid/000.png")
    pictures = Pictures(run.root)
    assert pictures.place("valid/000.png") == 0
    assert len(pictures.addresses[0]) < 20_000


def test_facts_are_text(make_run: MakeRun) -> None:
    for section in run_report(make_run("a", predictions=None)).sections:
        for block in section.blocks:
            if isinstance(block, Facts):
                assert all(isinstance(value, str) for value in block.facts.values())


def test_groups_are_said(make_run: MakeRun) -> None:
    predictions: Predictions = drawn_predictions(groups=np.repeat(np.arange(20), 3).astype(str))
    summary = blocks(run_report(make_run("a", predictions=predictions)), "summary")
    assert isinstance(summary[0], Scores)
    assert summary[0].title == "valid: 60 images, 20 groups"
