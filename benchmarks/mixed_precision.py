"""Does clipping matter under float16: gradient_clip_val 1.0 against 5.0, 500 steps each, on a GPU.

Command:  uv run python benchmarks/mixed_precision.py        (it needs a CUDA device)
Expected: a row every 50 steps: mean training loss and median gradient norm of the 50, scale of the loss, and steps
skipped so far, for each setting.
"""

import tempfile
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything

from cls_train.composition.builders import (
    build_callbacks,
    build_data,
    build_module,
    build_preprocessing,
    build_trainer,
    speed_up,
)
from cls_train.composition.config import RunConfig
from cls_train.logs import set_up_logs

ROOT = Path(__file__).resolve().parent.parent
STEPS, EVERY = 500, 50


class Trajectory(Callback):
    """Keeps the loss of every step, the scale, and how many steps the scaler skipped."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, float, float, float, int]] = []
        self._losses: list[torch.Tensor] = []
        self._norms: list[torch.Tensor] = []
        self._skipped = 0
        self._scale = 0.0

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Any
    ) -> None:
        """Measure the gradients, before they are clipped."""
        gradients = [
            parameter.grad for parameter in pl_module.parameters() if parameter.grad is not None
        ]
        self._norms.append(torch.nn.utils.get_total_norm(gradients))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note what this step did."""
        scale = trainer.precision_plugin.scaler.get_scale()  # type: ignore[attr-defined]
        self._skipped += scale < self._scale
        self._scale = scale
        self._losses.append(outputs["loss"].detach())
        if len(self._losses) == EVERY:
            loss, norm = (
                float(torch.stack(self._losses).mean()),
                float(torch.stack(self._norms).nanmedian()),
            )
            self.rows.append((batch_idx, loss, norm, scale, self._skipped))
            self._losses, self._norms = [], []


def main() -> None:
    """Measure and print."""
    set_up_logs()
    with tempfile.TemporaryDirectory() as folder:
        found = {clip: trajectory(clip, Path(folder)) for clip in (1.0, 5.0)}
    print(
        f"{'':>6}"
        + "".join(
            f"{f'clip {clip}: loss':>16}{'grad norm':>11}{'scale':>10}{'skipped':>9}"
            for clip in found
        )
    )
    for number in range(STEPS // EVERY):
        cells = [found[clip][number][1:] for clip in found]
        print(
            f"{(number + 1) * EVERY:>6}"
            + "".join(
                f"{loss:>16.4f}{norm:>11.2f}{scale:>10.0f}{skipped:>9}"
                for loss, norm, scale, skipped in cells
            )
        )


def trajectory(clip: float, folder: Path) -> list[tuple[int, float, float, float, int]]:
    """Train for some steps; return what happened."""
    overrides = [
        "trainer=gpu",
        "++trainer.precision=16-mixed",
        f"++trainer.gradient_clip_val={clip}",
        f"+trainer.max_steps={STEPS}",
        "trainer.max_epochs=1000",
        "seed=1",
        "data.gate=null",
        "++data.synthetic.train=1000",
        "++data.batch_size=128",
        f"data.root={folder}/data",
        f"run.root={folder}/runs",
    ]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = RunConfig.from_hydra(compose("config", overrides))
    seed_everything(1, verbose=False)
    kept = Trajectory()
    callbacks = build_callbacks(config).all
    trainer = build_trainer(config, folder / f"clip{clip}", [*callbacks, kept], logging=False)
    data = build_data(config, build_preprocessing(config))
    data.prepare_data()
    data.setup()
    module = build_module(config, data)
    speed_up(module, trainer)
    trainer.fit(module, datamodule=data)
    return kept.rows


if __name__ == "__main__":
    main()
