from typing import Any

import pytest
from lightning.pytorch import Callback
from loguru import logger

from cls_callbacks import GradientNorm


class Norms(Callback):
    """Measures gradients by hand, parameter by parameter."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        squares = [float(parameter.grad.square().sum()) for parameter in pl_module.parameters()]
        self.seen.append(sum(squares) ** 0.5)


def test_the_norm_of_all_gradients_is_logged_before_they_are_clipped(
    module: Any, data: Any, make_trainer: Any
) -> None:
    norms = Norms()
    trainer = make_trainer(
        norms, GradientNorm(), max_epochs=2, log_every_n_steps=3, gradient_clip_val=1e-3
    )
    trainer.fit(module, datamodule=data)
    assert len(norms.seen) == 6
    assert float(trainer.callback_metrics["grad_norm"]) == pytest.approx(norms.seen[-1], rel=1e-5)


class Scaler:
    """What the float16 plugin's scaler is asked here."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def get_scale(self) -> float:
        return self.scale


@pytest.mark.parametrize(("scale", "times"), [(2.0, 0), (0.5, 1)])
def test_a_loss_scale_about_to_collapse_is_told_once(
    module: Any, data: Any, make_trainer: Any, scale: float, times: int
) -> None:
    lines: list[str] = []
    sink = logger.add(lines.append, format="{message}", level="WARNING")
    trainer = make_trainer(callback := GradientNorm(), max_epochs=1, log_every_n_steps=1)
    for _ in range(3):
        callback._watch(Scaler(scale), trainer)
    logger.remove(sink)
    assert len(lines) == times
    assert all("the loss scale has fallen to 0.5 by step 0" in line for line in lines)
