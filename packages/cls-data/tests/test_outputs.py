from pathlib import Path

import numpy as np
import torch

from cls_data import EvaluationOutputs, Predictions


def test_predictions_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    outputs = EvaluationOutputs("valid", torch.randn(3, 2), torch.tensor([0, 1, 1]), torch.tensor([2, 0, 1]))
    written = Predictions.of(outputs, ids=["a.jpg", "b.jpg", "ü.jpg"], classes=["", "23"])
    written.save(tmp_path / "new" / "valid.npz")
    read = Predictions.load(tmp_path / "new" / "valid.npz")
    assert read.ids.tolist() == ["ü.jpg", "a.jpg", "b.jpg"]
    assert read.classes.tolist() == ["", "23"]
    assert read.labels.tolist() == [0, 1, 1]
    assert np.array_equal(read.logits, outputs.logits.numpy())
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["valid.npz"]
