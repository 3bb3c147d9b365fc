from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from cls_callbacks import SamplePredictions
from cls_callbacks.observers.sample_predictions import chosen_samples, predictions_figure
from cls_data import EvaluationOutputs


def outputs(confidence: list[float], answer: list[int], labels: list[int]) -> EvaluationOutputs:
    """Answers of two classes, each with its confidence, 0.5 to 1."""
    logits = torch.zeros(len(answer), 2)
    for row, (share, said) in enumerate(zip(confidence, answer, strict=True)):
        logits[row, said] = torch.tensor(share).logit()
    return EvaluationOutputs("valid", logits, torch.tensor(labels), torch.arange(len(answer)))


def test_the_surest_and_the_least_sure_mistakes_are_shown_once_each_and_right_answers_from_sure_to_unsure() -> (
    None
):
    given = outputs([0.9, 0.6, 0.8, 0.7, 0.95, 0.55], [0, 1, 1, 0, 1, 0], [1, 0, 0, 0, 1, 0])
    chosen = {name: places.tolist() for name, places in chosen_samples(given, columns=2).items()}
    assert chosen == {
        "surest mistakes": [0, 2],
        "least sure mistakes": [1],
        "right, from sure to unsure": [4, 5],
    }


@pytest.mark.parametrize(("labels", "empty"), [([0, 0, 0], "right"), ([1, 1, 1], "mistakes")])
def test_all_right_and_all_wrong_can_be_drawn(labels: list[int], empty: str) -> None:
    given = outputs([0.9, 0.6, 0.7], [1, 1, 1], labels)
    assert any(
        len(places) == 0 for name, places in chosen_samples(given, 4).items() if empty in name
    )
    figure = predictions_figure(
        given, torch.zeros(3, 3, 8, 8, dtype=torch.uint8), ("a", "$b_"), columns=4
    )
    said = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert any(line.endswith(": none") for line in said)
    titles = {axes.get_title() for axes in figure.axes}
    assert any(title.startswith(r"\$b_  90%") for title in titles), "a class name is no formula"


def test_a_picture_of_each_evaluated_split_is_written_and_none_while_training(
    module: Any, data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    trainer = make_trainer(SamplePredictions(), max_epochs=1)
    trainer.fit(module, datamodule=data)
    assert not (tmp_path / "run/plots/predictions_valid.png").exists()
    trainer.validate(module, datamodule=data, verbose=False)
    trainer.test(module, datamodule=data, verbose=False)
    for split in ("valid", "test"):
        with Image.open(tmp_path / f"run/plots/predictions_{split}.png") as picture:
            assert min(picture.size) > 200
