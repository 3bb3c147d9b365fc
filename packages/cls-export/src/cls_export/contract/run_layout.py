"""File names inside a run folder."""

from dataclasses import dataclass
from pathlib import Path

from cls_export.contract.bundle_layout import LABELS_FILE

CHECKPOINTS_FOLDER = "checkpoints"


@dataclass(frozen=True, slots=True)
class RunPaths:
    """Paths of the files of one run.

    A run is finished exactly when `summary` exists: it is written last.
    """

    path: Path

    @classmethod
    def from_checkpoint(cls, checkpoint: Path) -> "RunPaths":
        """Return the run of a file in its checkpoints folder."""
        return cls(checkpoint.parent.parent)

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def labels(self) -> Path:
        """The labels mapping, written before the first step."""
        return self.path / LABELS_FILE

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / CHECKPOINTS_FOLDER

    @property
    def best(self) -> Path:
        """The checkpoint with the best monitored metric."""
        return self.checkpoints / "best.ckpt"

    @property
    def last(self) -> Path:
        """The newest checkpoint, from which a run resumes."""
        return self.checkpoints / "last.ckpt"

    @property
    def next(self) -> Path:
        """The checkpoint that is about to become `last`; it exists between two renames."""
        return self.checkpoints / "next.ckpt"

    @property
    def previous(self) -> Path:
        """The checkpoint before `last`, used if that one is damaged."""
        return self.checkpoints / "previous.ckpt"

    @property
    def bundle(self) -> Path:
        """The exported bundle."""
        return self.path / "export"

    @property
    def predictions(self) -> Path:
        """The folder of predictions, one file per split."""
        return self.path / "predictions"

    @property
    def plots(self) -> Path:
        """The folder of plots."""
        return self.path / "plots"

    @property
    def metrics(self) -> Path:
        """The metrics of each epoch."""
        return self.path / "metrics.csv"

    @property
    def data_check(self) -> Path:
        """Findings of the data gate."""
        return self.path / "data_check.json"

    @property
    def statistics(self) -> Path:
        """Class counts and image sizes."""
        return self.path / "statistics.json"

    @property
    def model_info(self) -> Path:
        """Parameters, FLOPs, and latency of the network."""
        return self.path / "model_info.json"

    @property
    def sampler_distribution(self) -> Path:
        """How often the sampler drew each class."""
        return self.path / "sampler_distribution.json"

    @property
    def evaluation(self) -> Path:
        """Metrics of the best weights with confidence intervals."""
        return self.path / "evaluation.json"

    @property
    def robustness(self) -> Path:
        """Accuracy on degraded images."""
        return self.path / "degradation.json"

    @property
    def origin(self) -> Path:
        """The command and the package versions that started the run."""
        return self.path / "origin.json"

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.path / "report.html"

    @property
    def summary(self) -> Path:
        """The results of the run; its presence marks the run as finished."""
        return self.path / "summary.json"

    @property
    def log(self) -> Path:
        """The log file."""
        return self.path / "train.log"

    @property
    def lock(self) -> Path:
        """The lock file of the process that trains the run."""
        return self.path / "run.lock"

    @property
    def owner(self) -> Path:
        """The process that holds the lock; deleted when the run is finished."""
        return self.path / "owner.json"
