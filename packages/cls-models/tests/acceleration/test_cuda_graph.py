"""When `CudaGraphCallback` captures; test_step_graph.py has what it trains."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional

from cls_models import ClassificationModule, CompileCallback, CudaGraphCallback
from cls_models.acceleration.cuda_graph import get_unsupported_reason


class OnGpu(ClassificationModule):
    """Says that it is on a GPU."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("cuda", 0)


def build_module(module_class: type[ClassificationModule], backbone: nn.Module) -> Any:
    return module_class(backbone, 2, nn.CrossEntropyLoss(), torch.optim.AdamW)


def build_trainer(folder: Path | None = None, **settings: Any) -> Trainer:
    return Trainer(
        devices=1,
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **settings,
    )


def test_unsupported_reason_is_none_only_where_a_step_can_be_captured() -> None:
    def reason(module: LightningModule | None = None, **settings: Any) -> str | None:
        trainer = build_trainer(accelerator="cpu", **settings)
        return get_unsupported_reason(trainer, module or build_module(OnGpu, nn.Identity()))

    assert reason() is None
    assert reason(accumulate_grad_batches=2) is None
    on_cpu = build_module(ClassificationModule, nn.Identity())
    assert reason(on_cpu) == "the device type is cpu"
    assert reason(callbacks=[CompileCallback()]) == "CompileCallback is active"


def build_batches(device: str = "cpu") -> Any:
    batch = {"images": torch.ones(4, 3, 8, 8), "labels": torch.tensor([0, 1, 0, 1])}
    batches: Any = [{name: tensor.to(device) for name, tensor in batch.items()}] * 6
    return torch.utils.data.DataLoader(batches, batch_size=None)


def test_nothing_is_captured_on_a_cpu(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    module = build_module(
        ClassificationModule, nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2))
    )
    with caplog.at_level(logging.INFO, logger="cls_models"):
        trainer = build_trainer(tmp_path, accelerator="cpu", callbacks=[CudaGraphCallback()])
        trainer.fit(module, build_batches(), build_batches())
    assert trainer.global_step == 12
    assert module.step_graph is None
    assert "CUDA graph" not in caplog.text


class WaitingNetwork(nn.Module):
    """Reads a value from the device, which a CUDA graph cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)

    def forward(self, images: Tensor) -> Tensor:
        pooled = images.mean(dim=(2, 3))
        scale = 1.0 if float(pooled.sum()) > 0 else 2.0
        return functional.relu(self.head(pooled * scale))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_network_that_waits_for_the_device_trains_with_plain_steps(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weights = []
    for callbacks in ([], [CudaGraphCallback()]):
        torch.manual_seed(0)
        module = build_module(ClassificationModule, WaitingNetwork())
        trainer = build_trainer(tmp_path, accelerator="gpu", callbacks=callbacks)
        trainer.fit(module, build_batches(), build_batches())
        weights.append(module.backbone.head.weight.detach().cpu())
    assert "CUDA graph disabled: the step cannot be captured" in caplog.text
    assert torch.equal(*weights)
