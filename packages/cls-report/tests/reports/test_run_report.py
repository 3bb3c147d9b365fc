import json

import numpy as np
import pytest
from report_data import MakeRun, make_predictions

from cls_data import DataError
from cls_report.errors import ReportError
from cls_report.page.blocks import (
    Code,
    ConfusionMatrix,
    Facts,
    Gallery,
    Report,
    Scores,
    Table,
    Text,
)
from cls_report.reports.run_report import build_run_report
from cls_report.run_folder import Run
from cls_report.statistics.calibration_fitting import fit_temperature


def texts(report: Report, key: str) -> list[str]:
    return [block.text for block in blocks(report, key) if isinstance(block, Text)]


def blocks(report: Report, key: str) -> tuple[object, ...]:
    return next(section.blocks for section in report.sections if section.key == key)


def test_run_report_has_the_content_of_the_run_folder(make_run: MakeRun) -> None:
    run = make_run("a")
    run.paths.metrics.write_text(
        "epoch,step,lr,train_loss,valid_loss\n0,3,0.1,2.0,1.5\n1,6,0.05,1.0,\n"
    )
    run.paths.origin.write_text(
        json.dumps({"arguments": ["seed=1", "run.name=a b"], "versions": {"torch": "2"}})
    )
    run.paths.summary.write_text(
        json.dumps({"fit_seconds": 9.0, "warnings": ["a class is never predicted"]})
    )
    report = build_run_report(run)
    assert [section.key for section in report.sections] == [
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
    paragraphs = [block for block in summary if isinstance(block, Text)]
    warnings = [block.text for block in paragraphs if block.tone == "warning"]
    assert warnings[0].startswith("There is no test split")
    assert warnings[1] == "a class is never predicted"
    reproduce = blocks(report, "reproduce")
    command = next(block for block in reproduce if isinstance(block, Code))
    assert command.text == "uv run apps/train seed=1 'run.name=a b'"
    assert any(
        isinstance(block, Text) and "uncommitted changes" in block.text for block in reproduce
    )


@pytest.mark.parametrize("file", ["fit.json", "summary.json"])
def test_summary_shows_why_training_stopped_and_its_warnings(make_run: MakeRun, file: str) -> None:
    run = make_run("a")
    content = {"stopped": "stopped after epoch 2 of 5 by EarlyStopping", "warnings": ["w"]}
    (run.path / file).write_text(json.dumps(content))
    summary = texts(build_run_report(run), "summary")
    assert "Training stopped after epoch 2 of 5 by EarlyStopping." in summary
    assert "w" in summary


def test_the_confidence_section_says_what_is_missing(make_run: MakeRun) -> None:
    run = make_run("a")
    notes = ("not calibrated: too few images", "no rejection threshold: none reaches 90%")
    run.labels.model_copy(update={"confidence_notes": notes}).save(run.paths.labels)
    assert texts(build_run_report(Run.open(run.path)), "confidence") == [
        "Not calibrated: too few images.",
        "No rejection threshold: none reaches 90%.",
    ]


def test_confusion_matrix_has_every_image_and_the_gallery_the_most_confident_mistake(
    make_run: MakeRun,
) -> None:
    run = make_run("a")
    mistakes = blocks(build_run_report(run), "mistakes")
    matrix = next(block for block in mistakes if isinstance(block, ConfusionMatrix))
    predictions = run.predictions["valid"]
    assert matrix.labels == tuple(predictions.labels)
    assert matrix.predicted == tuple(predictions.logits.argmax(axis=1))
    assert matrix.names == tuple(predictions.ids)
    assert sorted(matrix.images) == list(range(60))

    gallery = next(block for block in mistakes if isinstance(block, Gallery))
    exponentials = np.exp(predictions.logits)
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    wrong = predictions.logits.argmax(axis=1) != predictions.labels
    row = int(np.where(wrong, probabilities.max(axis=1), 0).argmax())
    assert gallery.items[0].lines[2] == predictions.ids[row]
    assert gallery.items[0].lines[1] == f"confidence {probabilities[row].max():.1%}"


def test_gallery_has_the_grad_cam_of_each_mistake(make_run: MakeRun) -> None:
    run = make_run("a")
    predictions = run.predictions["valid"]
    wrong = np.flatnonzero(predictions.logits.argmax(axis=1) != predictions.labels)
    maps = np.zeros((len(wrong), 4, 4), np.uint8)
    file = run.paths.predictions / "gradcam_valid.npz"
    np.savez(file, ids=predictions.ids[wrong], maps=maps)
    mistakes = blocks(build_run_report(run), "mistakes")
    gallery = next(block for block in mistakes if isinstance(block, Gallery))
    assert all(item.overlay is not None for item in gallery.items)


def test_report_of_a_calibrated_run_has_both_confidences(make_run: MakeRun) -> None:
    run = make_run("a")
    predictions = run.predictions["valid"]
    calibration = fit_temperature(predictions.logits, predictions.labels)
    run.labels.model_copy(update={"calibration": calibration}).save(run.paths.labels)
    (text, *charts) = blocks(build_run_report(Run.open(run.path)), "confidence")
    assert isinstance(text, Text)
    assert "uncalibrated" in text.text
    assert [series.name for series in charts[0].series] == [
        "perfect calibration",
        "softmax",
        "calibrated",
    ]


def test_report_is_built_without_the_image_files(make_run: MakeRun) -> None:
    run = make_run("a")
    for path in run.data_root.rglob("*.png"):
        path.unlink()
    report = build_run_report(run)
    assert report.images == ()
    mistakes = blocks(report, "mistakes")
    matrix = next(block for block in mistakes if isinstance(block, ConfusionMatrix))
    assert set(matrix.images) == {-1}
    assert "60 of 60 images are not included" in matrix.note


def test_report_of_a_perfect_run_with_absent_classes_is_built(make_run: MakeRun) -> None:
    predictions = make_predictions(
        labels=np.zeros(60, np.int64), logits=np.tile(np.float32([9, 0, 0, 0]), (60, 1))
    )
    report = build_run_report(make_run("a", predictions=predictions))
    table = next(block for block in blocks(report, "classes") if isinstance(block, Table))
    recall = next(column for column in table.columns if column.title == "recall")
    assert [each.value for each in recall.values] == [1.0, None, None, None]
    assert any(
        isinstance(block, Text) and "all predictions are correct" in block.text
        for block in blocks(report, "mistakes")
    )


def test_robustness_section_has_one_chart_per_degradation(make_run: MakeRun) -> None:
    run = make_run("a")
    estimate = {"value": 0.8, "low": 0.7, "high": 0.9}
    curve = {"unit": "quality", "levels": [90, 5], "top1": [estimate, {**estimate, "value": 0.5}]}
    run.paths.robustness.write_text(
        json.dumps({"untouched": estimate, "curves": {"JPEG compression": curve}})
    )
    (chart,) = blocks(build_run_report(run), "robustness")
    assert [series.y for series in chart.series] == [(0.8, 0.5), (0.8, 0.8)]


def test_opening_a_folder_that_is_not_an_evaluated_run_is_an_error(make_run: MakeRun) -> None:
    run = make_run("a")
    with pytest.raises(ReportError, match=r"not a run folder .*expected a folder such as runs/N"):
        Run.open(run.path.parent)
    (run.paths.predictions / "valid.npz").unlink()
    with pytest.raises(
        ReportError, match=r"not been evaluated .*run: uv run python -m cls_train.stages.evaluate"
    ):
        Run.open(run.path)


def test_advised_commands_quote_paths(make_run: MakeRun) -> None:
    run = make_run("a b")
    (run.paths.bundle / "model.onnx").parent.mkdir()
    (run.paths.bundle / "model.onnx").touch()
    (cost,) = blocks(build_run_report(run), "cost")
    assert isinstance(cost, Facts)
    assert cost.facts["to measure its latency"] == f"cls-export bench '{run.paths.bundle}'"
    (run.paths.predictions / "valid.npz").unlink()
    with pytest.raises(ReportError, match=rf"cls_train.stages.evaluate '{run.path}'$"):
        Run.open(run.path)


def test_opening_a_run_with_a_truncated_predictions_file_is_an_error(make_run: MakeRun) -> None:
    file = make_run("a").paths.predictions / "valid.npz"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(DataError, match=r"valid\.npz: "):
        Run.open(file.parents[1])


def test_facts_are_text(make_run: MakeRun) -> None:
    for section in build_run_report(make_run("a")).sections:
        for block in section.blocks:
            if isinstance(block, Facts):
                assert all(isinstance(value, str) for value in block.facts.values())


def test_summary_states_the_number_of_groups(make_run: MakeRun) -> None:
    predictions = make_predictions(groups=np.repeat(np.arange(20), 3).astype(str))
    summary = blocks(build_run_report(make_run("a", predictions=predictions)), "summary")
    assert isinstance(summary[0], Scores)
    assert summary[0].title == "valid: 60 images, 20 groups"
