"""A step graph trains the same weights as plain steps: on a CPU without graphs, on a GPU with."""

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from cls_models import (
    ClassificationModule,
    CudaGraphCallback,
    FocalLoss,
    Muon,
    Transfer,
    one_cycle,
    warmup_cosine,
)
from cls_models.acceleration import cuda_graph

EPOCHS = 5
STEPS_PER_EPOCH = 11
CLASSES = 3
DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
    ),
]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The device; on a CPU, each launch calls the function that a GPU would capture."""
    if request.param == "cpu":
        monkeypatch.setattr(cuda_graph, "get_unsupported_reason", lambda *_: None)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    return str(request.param)


class GraphedSteps(Callback):
    """Record which steps use the graph, whether it updates the weights, and gradient norms."""

    def __init__(self) -> None:
        self.steps: list[bool] = []
        self.updates: list[bool] = []
        self.norms: list[float] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
        gradients = [each.grad for each in pl_module.parameters() if each.grad is not None]
        self.norms.append(float(torch.nn.utils.get_total_norm(gradients)))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        graph = pl_module.step_graph
        self.steps.append(graph is not None)
        self.updates.append(graph is not None and graph.clips_gradients)


def build_network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),  # before a batch norm, its gradient would be noise
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(32, CLASSES),
    )


def build_batches(*, mixed: bool = False) -> list[Any]:
    generator = torch.Generator().manual_seed(1)
    batches = []
    for number in range(STEPS_PER_EPOCH):
        batch = {
            "images": torch.randn(6, 3, 12, 10, generator=generator),
            "labels": torch.randint(CLASSES, (6,), generator=generator),
            "index": torch.arange(6) + 6 * number,
        }
        if mixed:
            targets = torch.rand(6, CLASSES, generator=generator)
            batch["targets"] = targets / targets.sum(dim=1, keepdim=True)
        batches.append(batch)
    return batches


def fit(
    folder: Path,
    device: str,
    *callbacks: Callback,
    optimizer: Any = None,
    loss: nn.Module | None = None,
    scheduler: Any = None,
    transfer: Transfer | None = None,
    mixed: bool = False,
    batches: list[Any] | None = None,
    **settings: Any,
) -> tuple[ClassificationModule, Trainer]:
    torch.manual_seed(0)
    module = ClassificationModule(
        build_network(),
        CLASSES,
        loss or nn.CrossEntropyLoss(),
        optimizer or functools.partial(torch.optim.AdamW, lr=0.01),
        scheduler,
        transfer=transfer,
    )
    loader = torch.utils.data.DataLoader(batches or build_batches(mixed=mixed), batch_size=None)
    trainer = Trainer(
        accelerator="gpu" if device == "cuda" else "cpu",
        devices=1,
        max_epochs=EPOCHS,
        log_every_n_steps=4,
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
    return module, trainer


def assert_same_training(folder: Path, device: str, *, steps: int, **settings: Any) -> GraphedSteps:
    """Train with and without the graph; `steps` is how many plain steps the first one takes."""
    plain_steps = GraphedSteps()
    plain, plain_trainer = fit(folder, device, plain_steps, **settings)
    graphed_steps = GraphedSteps()
    graphed, trainer = fit(folder, device, CudaGraphCallback(), graphed_steps, **settings)

    assert not any(plain_steps.steps)
    total = EPOCHS * STEPS_PER_EPOCH
    assert graphed_steps.steps == [False] * steps + [True] * (total - steps)
    assert graphed.step_graph is None

    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(graphed.state_dict()[name], tensor, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(graphed_steps.norms, plain_steps.norms, rtol=1e-3, atol=1e-5)
    for name, value in plain_trainer.callback_metrics.items():
        torch.testing.assert_close(trainer.callback_metrics[name], value, rtol=1e-4, atol=1e-5)
    assert_same_optimizer(trainer, plain_trainer)
    return graphed_steps


def assert_same_optimizer(trainer: Trainer, plain: Trainer) -> None:
    state, expected = (each.optimizers[0].state_dict() for each in (trainer, plain))
    assert state["param_groups"] == expected["param_groups"]
    for number, values in expected["state"].items():
        for name, value in values.items():
            found = state["state"][number][name]
            assert found.device == value.device
            torch.testing.assert_close(found, value, rtol=1e-3, atol=1e-6)


OPTIMIZERS = {
    "adamw": functools.partial(torch.optim.AdamW, lr=0.01, weight_decay=0.1),
    "adamw plain": functools.partial(torch.optim.AdamW, lr=0.01, fused=False),
    "sgd": functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9, nesterov=True),
    "sgd without momentum": functools.partial(torch.optim.SGD, lr=0.05),
    "muon": functools.partial(Muon, lr=0.01),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_step_graph_trains_the_same_weights(tmp_path: Path, device: str, optimizer: Any) -> None:
    steps = assert_same_training(tmp_path, device, steps=3, optimizer=optimizer)
    assert all(steps.updates[3:])


WARMUP = functools.partial(warmup_cosine, warmup=0.2)
COMMON_SETTINGS = {
    "clip norm": {"gradient_clip_val": 0.5},
    "clip value": {"gradient_clip_val": 0.02, "gradient_clip_algorithm": "value"},
    "weights and smoothing": {
        "loss": nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 0.5]), label_smoothing=0.1)
    },
    "focal": {"loss": FocalLoss(weight=[1.0, 2.0, 0.5])},
    "soft targets": {"mixed": True},
    "warmup": {"scheduler": WARMUP},
    "warmup and clip": {"scheduler": WARMUP, "gradient_clip_val": 0.5},
}


@pytest.mark.parametrize("settings", COMMON_SETTINGS.values(), ids=COMMON_SETTINGS)
def test_a_step_graph_covers_common_settings(
    tmp_path: Path, device: str, settings: dict[str, Any]
) -> None:
    steps = assert_same_training(tmp_path, device, steps=3, **settings)
    assert all(steps.updates[3:])


def test_a_step_graph_adds_up_the_gradients_of_several_batches(tmp_path: Path, device: str) -> None:
    # The last of 11 batches is a sum of its own, and the fourth sum starts with batch 7.
    assert_same_training(
        tmp_path, device, steps=6, accumulate_grad_batches=2, gradient_clip_val=0.5
    )


def test_a_changed_number_of_accumulated_batches_is_captured_again(
    tmp_path: Path, device: str
) -> None:
    graphed = GraphedSteps()
    schedule = {0: 1, 2: 2}
    plain, _ = fit(tmp_path, device, GradientAccumulationScheduler(schedule))
    module, _ = fit(
        tmp_path, device, GradientAccumulationScheduler(schedule), CudaGraphCallback(), graphed
    )
    assert graphed.steps == [False] * 3 + [True] * 19 + [False] * 6 + [True] * 27
    assert all(graphed.updates[28:])
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(module.state_dict()[name], tensor, rtol=1e-4, atol=1e-5)


def test_a_cycled_momentum_leaves_the_update_to_the_optimizer(tmp_path: Path, device: str) -> None:
    steps = assert_same_training(
        tmp_path,
        device,
        steps=3,
        optimizer=OPTIMIZERS["sgd"],
        scheduler=one_cycle,
        gradient_clip_val=0.5,
    )
    assert steps.updates == [False] * 3 + [True] + [False] * 51


def test_unfrozen_layers_are_captured_again(tmp_path: Path, device: str) -> None:
    graphed = GraphedSteps()
    transfer = Transfer(frozen="all_but_head", unfreeze_at=[2])
    settings: dict[str, Any] = {"transfer": transfer, "optimizer": OPTIMIZERS["sgd"]}
    plain, _ = fit(tmp_path, device, **settings)
    module, _ = fit(tmp_path, device, CudaGraphCallback(), graphed, **settings)
    assert graphed.steps == [False] * 3 + [True] * 19 + [False] * 3 + [True] * 30
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(module.state_dict()[name], tensor, rtol=1e-4, atol=1e-5)


def test_a_batch_of_another_shape_takes_plain_steps(tmp_path: Path, device: str) -> None:
    batches = build_batches()
    for batch in batches[6:]:
        batch["images"] = batch["images"][:, :, :9]
    graphed = GraphedSteps()
    plain, _ = fit(tmp_path, device, batches=batches)
    module, _ = fit(tmp_path, device, CudaGraphCallback(), graphed, batches=batches)
    first_epoch = [False] * 3 + [True] * 3 + [False] * 3 + [True] * 2
    assert graphed.steps[:11] == first_epoch
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(module.state_dict()[name], tensor, rtol=1e-4, atol=1e-5)


class Weights(Callback):
    """Record the first layer after every step."""

    def __init__(self) -> None:
        self.by_step: list[Tensor] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        self.by_step.append(pl_module.backbone[0].weight.detach().clone())


def test_a_new_rate_reaches_the_update_at_once(tmp_path: Path, device: str) -> None:
    def only_even_epochs(optimizer: Any, **_: Any) -> LambdaLR:
        return LambdaLR(optimizer, lambda epoch: float(epoch % 2 == 0))

    weights = Weights()
    fit(tmp_path, device, CudaGraphCallback(), weights, scheduler=only_even_epochs)
    moved = []
    for one, other in zip(weights.by_step, weights.by_step[1:], strict=False):
        moved.append(not torch.equal(one, other))
    steps = range(1, EPOCHS * STEPS_PER_EPOCH)
    assert moved == [step // STEPS_PER_EPOCH % 2 == 0 for step in steps]


def test_an_exception_leaves_a_module_that_trains_plainly(tmp_path: Path, device: str) -> None:
    class Fail(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            if trainer.global_step == 7:
                raise ValueError("step 7")

    torch.manual_seed(0)
    module = ClassificationModule(
        build_network(), CLASSES, nn.CrossEntropyLoss(), OPTIMIZERS["adamw"]
    )
    loader = torch.utils.data.DataLoader(build_batches(), batch_size=None)
    trainer = Trainer(
        accelerator="gpu" if device == "cuda" else "cpu",
        devices=1,
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        callbacks=[CudaGraphCallback(), Fail()],
    )
    with pytest.raises(ValueError, match="step 7"):
        trainer.fit(module, loader, loader)
    assert module.step_graph is None
    before = module.backbone[0].weight.detach().clone()
    batch = {name: tensor.to(module.device) for name, tensor in build_batches()[0].items()}
    module.compute_loss(batch).backward()
    trainer.optimizers[0].step()
    assert not torch.equal(module.backbone[0].weight, before)
