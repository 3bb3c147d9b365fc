from typing import Any

import pytest
from lightning.pytorch import Callback

from cls_callbacks import GradientNormMonitor


class Norms(Callback):
    """Record the gradient norm, computed one parameter at a time."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        squares = [float(parameter.grad.square().sum()) for parameter in pl_module.parameters()]
        self.seen.append(sum(squares) ** 0.5)


def test_norm_of_all_gradients_is_logged_before_clipping(
    module: Any, data: Any, make_trainer: Any
) -> None:
    norms = Norms()
    trainer = make_trainer(
        norms, GradientNormMonitor(), max_epochs=2, log_every_n_steps=3, gradient_clip_val=1e-3
    )
    trainer.fit(module, datamodule=data)
    assert len(norms.seen) == 6
    assert float(trainer.callback_metrics["grad_norm"]) == pytest.approx(norms.seen[-1], rel=1e-5)


class Scaler:
    """A float16 loss scaler with a fixed scale."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def get_scale(self) -> float:
        return self.scale


@pytest.mark.parametrize(("scale", "times"), [(2.0, 0), (0.5, 1)])
def test_low_loss_scale_is_logged_once(
    make_trainer: Any, log_warnings: list[str], scale: float, times: int
) -> None:
    callback = GradientNormMonitor()
    trainer = make_trainer(callback, max_epochs=1, log_every_n_steps=1)
    for _ in range(3):
        callback._check_loss_scale(Scaler(scale), trainer)
    assert len(log_warnings) == times
    for line in log_warnings:
        assert "loss scale has fallen to 0.5 by step 0" in line
