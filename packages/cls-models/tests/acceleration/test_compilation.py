import copy
import functools
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn

from cls_models import ClassificationModule, CompileCallback
from cls_models.acceleration import compilation
from cls_models.acceleration.compilation import compile_in_place
from cls_models.acceleration.errors import HardwareError


def fit(folder: Path, callback: CompileCallback) -> ClassificationModule:
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
        callbacks=[callback],
    )
    trainer.fit(module, batches, batches)
    return module


def test_compile_callback_logs_why_it_does_not_compile_small_images_on_a_cpu(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    callback = CompileCallback()
    with caplog.at_level(logging.INFO, logger="cls_models"):
        fit(tmp_path, callback)
    assert callback.seconds is None
    assert "not compiling: images of 16 px are below 128 px" in caplog.text


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU"
)
@pytest.mark.filterwarnings("ignore")
def test_compile_callback_reports_compilation_time_and_keeps_names_when_always(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    callback = CompileCallback("always")
    with caplog.at_level(logging.INFO, logger="cls_models"):
        module = fit(tmp_path, callback)
    assert callback.seconds is not None
    assert callback.seconds > 0
    assert "compilation took" in caplog.text
    assert [name for name in module.state_dict() if "_orig_mod" in name] == []


def test_compile_callback_rejects_an_unknown_setting() -> None:
    with pytest.raises(ValueError, match="when must be 'auto' or 'always', got 'sometimes'"):
        CompileCallback("sometimes")  # type: ignore[arg-type]


@pytest.mark.slow
def test_compile_in_place_keeps_results_and_names() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))
    images = torch.randn(2, 3, 6, 6)
    expected, keys = module(images), list(module.state_dict())
    try:
        compile_in_place(module, "cpu")
    except HardwareError as error:
        pytest.skip(str(error))
    module(images).sum().backward()
    torch.testing.assert_close(module(images), expected)
    assert list(module.state_dict()) == keys
    assert isinstance(module, nn.Sequential)
    torch.testing.assert_close(copy.deepcopy(module)(images), expected)


def test_compile_in_place_explains_a_missing_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch._inductor.config as inductor

    # A function that earlier tests have not put into inductor's cache.
    monkeypatch.setattr(compilation, "_compiler_test", lambda x: (x.cos() * 3).tan() - 7)
    torch.compiler.reset()
    module = nn.Linear(2, 2)
    with (
        # Not monkeypatch, which would leave the setting deleted.
        inductor.patch({"cpp.cxx": (None, "no-such-compiler")}),
        pytest.raises(
            HardwareError, match=r"does not work on this machine.*needs a C\+\+ compiler \(g\+\+"
        ),
    ):
        compile_in_place(module, "cpu")
    assert inductor.cpp.cxx[1] != "no-such-compiler"
    assert module._compiled_call_impl is None
