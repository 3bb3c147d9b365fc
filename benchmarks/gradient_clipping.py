"""Compare gradient clipping at 1.0 and 5.0 under float16 on a GPU.

Command:  uv run python benchmarks/gradient_clipping.py        (needs a CUDA device)
Expected: a row every 50 steps of 500: for each setting the mean training loss, the median gradient
          norm, the loss scale, and the number of steps that the scaler has skipped so far.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from composed_run import compose_run
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything

from cls_train.logs import configure_logging

STEPS = 500
STEPS_PER_ROW = 50
CLIP_VALUES = (1.0, 5.0)


@dataclass(frozen=True)
class Row:
    """Figures of some consecutive steps."""

    loss: float
    gradient_norm: float
    scale: float
    skipped: int


class StepRecorder(Callback):
    """Records loss, gradient norm, loss scale, and skipped steps."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self._losses: list[torch.Tensor] = []
        self._norms: list[torch.Tensor] = []
        self._skipped = 0
        self._scale = 0.0

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Any
    ) -> None:
        """Record the gradient norm before clipping."""
        parameters = [each for each in pl_module.parameters() if each.grad is not None]
        gradients = [parameter.grad for parameter in parameters]
        self._norms.append(torch.nn.utils.get_total_norm(gradients))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record the loss and the scale of this step."""
        scale = trainer.precision_plugin.scaler.get_scale()  # type: ignore[attr-defined]
        self._skipped += scale < self._scale
        self._scale = scale
        self._losses.append(outputs["loss"].detach())
        if len(self._losses) == STEPS_PER_ROW:
            loss = float(torch.stack(self._losses).mean())
            norm = float(torch.stack(self._norms).nanmedian())
            self.rows.append(Row(loss, norm, scale, self._skipped))
            self._losses.clear()
            self._norms.clear()


def main() -> None:
    """Train with each setting and print a table."""
    configure_logging()
    recorded: dict[float, list[Row]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for clip in CLIP_VALUES:
            recorded[clip] = train(clip, Path(folder))
    header = f"{'step':>6}"
    for clip in CLIP_VALUES:
        header += f"{f'clip {clip}: loss':>16}{'grad norm':>11}{'scale':>10}{'skipped':>9}"
    print(header)
    for number in range(STEPS // STEPS_PER_ROW):
        line = f"{(number + 1) * STEPS_PER_ROW:>6}"
        for clip in CLIP_VALUES:
            row = recorded[clip][number]
            line += f"{row.loss:>16.4f}{row.gradient_norm:>11.2f}{row.scale:>10.0f}{row.skipped:>9}"
        print(line)


def train(clip: float, folder: Path) -> list[Row]:
    """Train for some steps with one clip value."""
    overrides = [
        "trainer=gpu",
        "++trainer.precision=16-mixed",
        f"++trainer.gradient_clip_val={clip}",
        f"+trainer.max_steps={STEPS}",
        "trainer.max_epochs=1000",
        "data.gate=null",
        "++data.synthetic.train=1000",
        "++data.batch_size=128",
        f"data.root={folder}/data",
        "seed=1",
    ]
    seed_everything(1, verbose=False)
    recorder = StepRecorder()
    compose_run(overrides, folder / f"clip{clip}" / "run", extra_callbacks=[recorder]).fit()
    return recorder.rows


if __name__ == "__main__":
    main()
