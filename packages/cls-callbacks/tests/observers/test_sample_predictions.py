from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from cls_callbacks import SamplePredictionsPlot
from cls_callbacks.observers.sample_predictions import sample_predictions_figure, select_samples
from cls_data import EvaluationOutputs


def make_outputs(
    confidence: list[float], predictions: list[int], labels: list[int]
) -> EvaluationOutputs:
    """Return outputs for two classes, with confidences between 0.5 and 1."""
    logits = torch.zeros(len(labels), 2)
    for row, prediction in enumerate(predictions):
        logits[row, prediction] = torch.tensor(confidence[row]).logit()
    return EvaluationOutputs("valid", logits, torch.tensor(labels), torch.arange(len(labels)))


def test_selected_samples_are_sorted_by_confidence_without_repeats() -> None:
    confidence = [0.9, 0.6, 0.8, 0.7, 0.95, 0.55]
    outputs = make_outputs(confidence, predictions=[0, 1, 1, 0, 1, 0], labels=[1, 0, 0, 0, 1, 0])
    selected = select_samples(outputs, columns=2)
    assert {title: samples.tolist() for title, samples in selected.items()} == {
        "most confident mistakes": [0, 2],
        "least confident mistakes": [1],
        "correct, most to least confident": [4, 5],
    }


@pytest.mark.parametrize(("labels", "empty"), [([0, 0, 0], "correct"), ([1, 1, 1], "mistakes")])
def test_figure_is_plotted_when_all_predictions_are_correct_or_wrong(
    labels: list[int], empty: str
) -> None:
    outputs = make_outputs([0.9, 0.6, 0.7], [1, 1, 1], labels)
    selected = select_samples(outputs, columns=4)
    assert any(len(samples) == 0 for title, samples in selected.items() if empty in title)
    pixels = torch.zeros(3, 3, 8, 8, dtype=torch.uint8)
    figure = sample_predictions_figure(outputs, pixels, ("a", "$b_"), columns=4)
    (axes,) = figure.axes
    texts = [text.get_text() for text in axes.texts]
    assert any(text.endswith(": none") for text in texts)
    assert any(text.startswith("$b_  90%") for text in texts)
    assert len(axes.images) == 3


def test_plot_is_written_for_each_evaluated_split_but_not_during_fit(
    module: Any, data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    trainer = make_trainer(SamplePredictionsPlot(), max_epochs=1)
    trainer.fit(module, datamodule=data)
    assert not (tmp_path / "run/plots/predictions_valid.png").exists()
    trainer.validate(module, datamodule=data, verbose=False)
    trainer.test(module, datamodule=data, verbose=False)
    for split in ("valid", "test"):
        with Image.open(tmp_path / f"run/plots/predictions_{split}.png") as picture:
            assert min(picture.size) > 200
