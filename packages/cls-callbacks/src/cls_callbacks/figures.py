"""How a figure becomes a file. Figures are built without pyplot, so no window system and no global state is touched."""

from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch import Trainer
from matplotlib.figure import Figure


def plots_folder(trainer: Trainer) -> Path:
    """Return the run's plots folder, made if need be."""
    folder = Path(trainer.default_root_dir) / "plots"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def tick_names(classes: Sequence[str]) -> list[str]:
    """Return class names as labels of an axis: none of them invisible, none of them read as a formula."""
    return [name.replace("$", r"\$") or "(empty)" for name in classes]


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG."""
    figure.savefig(path, dpi=120, bbox_inches="tight")
