import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch import Tensor, nn

from cls_models import ClassificationModule, CompileCallback, CudaGraphCallback
from cls_models.acceleration.cuda_graph import get_unsupported_reason

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


class Launches(Callback):
    """Count the steps of each epoch in which the network's forward is replaced."""

    def __init__(self) -> None:
        self.by_epoch: list[int] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.by_epoch.append(0)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.by_epoch[-1] += "forward" in vars(pl_module.backbone)


def fit(
    folder: Path, accelerator: str, *callbacks: Callback, **settings: Any
) -> ClassificationModule:
    torch.manual_seed(0)
    backbone = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(8 * 14 * 14, 2),
    )
    module = ClassificationModule(
        backbone, 2, nn.CrossEntropyLoss(), functools.partial(torch.optim.SGD, lr=0.01)
    )
    generator = torch.Generator().manual_seed(1)
    batches: Any = [
        {
            "images": torch.randn(4, 3, 16, 16, generator=generator),
            "labels": torch.tensor([0, 1, 0, 1]),
        }
        for _ in range(6)
    ]
    loader = torch.utils.data.DataLoader(batches, batch_size=None)
    trainer = Trainer(
        accelerator=accelerator,
        devices=1,
        max_epochs=3,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
        callbacks=list(callbacks),
        deterministic=True,
        **settings,
    )
    trainer.fit(module, loader, loader)
    return module


def weights(module: ClassificationModule) -> dict[str, Tensor]:
    return {name: tensor.cpu() for name, tensor in module.state_dict().items()}


def test_cuda_graph_callback_captures_nothing_on_a_cpu(tmp_path: Path) -> None:
    launches = Launches()
    fit(tmp_path, "cpu", CudaGraphCallback(), launches)
    assert launches.by_epoch == [0, 0, 0]


def test_unsupported_reason_is_none_only_where_gradients_are_correct() -> None:
    def reason(device: str = "cuda", **settings: Any) -> str | None:
        trainer = Trainer(
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            **settings,
        )
        return get_unsupported_reason(trainer, torch.device(device))

    assert reason() is None
    assert reason("cpu") == "the device type is cpu"
    assert reason(callbacks=[CompileCallback()]) == "CompileCallback is active"
    assert reason(callbacks=[GradientAccumulationScheduler({1: 1})]) is None
    for settings in (
        {"accumulate_grad_batches": 2},
        {"callbacks": [GradientAccumulationScheduler({1: 2})]},
    ):
        assert reason(**settings) == "gradients are accumulated over batches"


@needs_cuda
def test_cuda_graph_callback_captures_nothing_with_gradient_accumulation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    launches = Launches()
    plain = weights(fit(tmp_path, "gpu", accumulate_grad_batches=2))
    with_callback = fit(tmp_path, "gpu", CudaGraphCallback(), launches, accumulate_grad_batches=2)
    assert launches.by_epoch == [0, 0, 0]
    assert all(torch.equal(plain[name], tensor) for name, tensor in weights(with_callback).items())


@needs_cuda
def test_cuda_graph_callback_trains_the_same_weights_and_statistics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    launches = Launches()
    plain = weights(fit(tmp_path, "gpu"))
    graphed = fit(tmp_path, "gpu", CudaGraphCallback(), launches)
    assert launches.by_epoch == [0, 0, 6]
    assert all(torch.equal(plain[name], tensor) for name, tensor in weights(graphed).items())


@needs_cuda
def test_cuda_graph_callback_restores_the_forward_after_training(tmp_path: Path) -> None:
    assert "forward" not in vars(fit(tmp_path, "gpu", CudaGraphCallback()).backbone)
