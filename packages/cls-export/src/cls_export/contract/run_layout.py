"""File names inside a run folder."""

import shlex
from pathlib import Path

from cls_export.contract.bundle_layout import LABELS_FILE

CHECKPOINTS_FOLDER = "checkpoints"


class RunPaths:
    """Paths of the files of one run.

    A run is finished exactly when `summary` exists: it is written last. docs/runs.md has a table of
    the states of a run and the files of each.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.labels = path / LABELS_FILE

        self.checkpoints = path / CHECKPOINTS_FOLDER
        self.best = self.checkpoints / "best.ckpt"
        self.last = self.checkpoints / "last.ckpt"
        self.next = self.checkpoints / "next.ckpt"
        """The newest checkpoint, until it is renamed to `last`."""
        self.previous = self.checkpoints / "previous.ckpt"
        """The checkpoint before `last`, used if that one is damaged."""

        self.bundle = path / "export"
        self.predictions = path / "predictions"
        self.plots = path / "plots"
        self.report = path / "report.html"

        self.metrics = path / "metrics.csv"
        self.data_check = path / "data_check.json"
        self.split = path / "split.jsonl"
        """The split of each image, for class folders."""
        self.statistics = path / "statistics.json"
        self.model_info = path / "model_info.json"
        self.sampler_distribution = path / "sampler_distribution.json"
        self.fit = path / "fit.json"
        """Duration, speed, and warnings of the training; written when it is complete."""
        self.evaluation = path / "evaluation.json"
        self.robustness = path / "degradation.json"
        self.origin = path / "origin.json"
        """The command and the package versions that started the run."""
        self.summary = path / "summary.json"
        self.remote = path / "remote.json"
        """Which pushes to `run.remote` this folder has seen."""

        self.log = path / "train.log"
        self.lock = path / "run.lock"
        self.owner = path / "owner.json"
        """The process that holds the lock; deleted when the run is finished."""

    @property
    def evaluate_command(self) -> str:
        """The command that writes the predictions and evaluation.json again."""
        return f"uv run python -m cls_train.stages.evaluate {shlex.quote(str(self.path))}"

    @classmethod
    def from_checkpoint(cls, checkpoint: Path) -> "RunPaths":
        """Return the run of a file in its checkpoints folder."""
        checkpoints = checkpoint.parent
        return cls(checkpoints.parent)
