import functools
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn

from cls_models import ClassificationModule, Compilation


def fit(folder: Path, compilation: Compilation) -> ClassificationModule:
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14 * 14, 2))
    module = ClassificationModule(
        backbone, 2, nn.CrossEntropyLoss(), functools.partial(torch.optim.SGD, lr=0.01)
    )
    batch: dict[str, Any] = {
        "images": torch.randn(4, 3, 16, 16),
        "labels": torch.tensor([0, 1, 0, 1]),
    }
    batches = torch.utils.data.DataLoader([batch] * 25, batch_size=None)  # type: ignore[arg-type]
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
        callbacks=[compilation],
    )
    trainer.fit(module, batches, batches)
    return module


def test_small_images_on_a_cpu_are_not_compiled_and_the_reason_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    compilation = Compilation()
    with caplog.at_level(logging.INFO, logger="cls_models"):
        fit(tmp_path, compilation)
    assert compilation.seconds is None
    assert "not compiled: on a CPU that gains nothing below 128 px; images have 16" in caplog.text


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU"
)
@pytest.mark.filterwarnings("ignore")
def test_compiling_as_asked_reports_its_time_and_keeps_the_names(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    compilation = Compilation("always")
    with caplog.at_level(logging.INFO, logger="cls_models"):
        module = fit(tmp_path, compilation)
    assert compilation.seconds is not None
    assert compilation.seconds > 0
    assert "compiling took" in caplog.text
    assert [name for name in module.state_dict() if "_orig_mod" in name] == []


def test_an_unknown_word_is_refused() -> None:
    with pytest.raises(ValueError, match="when must be 'auto' or 'always', got 'sometimes'"):
        Compilation("sometimes")  # type: ignore[arg-type]
