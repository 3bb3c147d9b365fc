"""Compose configurations and run the app in this process."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import get_model

from cls_callbacks import AtomicCheckpointIO
from cls_export import LabelsMapping
from cls_export.contract.run_layout import RunPaths
from cls_train.builders import build_network, build_preprocessing
from cls_train.composition.arguments import CommandLine
from cls_train.composition.compose import Composer
from cls_train.composition.config import RunConfig
from cls_train.main import compose_configs, main
from cls_train.run_folder.resume import begin_run
from cls_train.run_folder.run_lock import release_lock

CONF = Path(__file__).resolve().parents[3] / "conf"


@pytest.fixture(scope="session")
def conf() -> Path:
    return CONF


Compose = Callable[..., RunConfig]


@pytest.fixture(scope="session")
def composed() -> Compose:
    """Compose and check a configuration, as the command line would."""

    composer = Composer(CONF, CommandLine())

    def compose_config(*overrides: str) -> RunConfig:
        ((config, _),) = compose_configs(CommandLine(overrides), composer)
        return config

    return compose_config


RunApp = Callable[..., tuple[int, str]]


@pytest.fixture
def run_app(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> RunApp:
    """Run the app in an empty folder and return its exit code and what it wrote to stderr."""

    def run(*overrides: str) -> tuple[int, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["apps/train", *overrides])
        capfd.readouterr()
        try:
            code = main(CONF)
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, capfd.readouterr().err

    return run


@pytest.fixture(scope="session")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state dict of a ResNet-18, as torchvision publishes them."""
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(get_model("resnet18", weights=None).state_dict(), path)
    return path


@pytest.fixture
def data_root(tmp_path: Path) -> Path:
    """A small data root: two classes, six training images, and two validation images."""
    root = tmp_path / "mine"
    write_split(root / "train", ["7", "23"] * 3)
    write_split(root / "valid", ["7", "23"])
    return root


@pytest.fixture
def make_run(composed: Compose, tmp_path: Path) -> Callable[..., Path]:
    """Create the folder of a run with the classes 23 and 7, and a best.ckpt of random weights."""

    def make(*overrides: str) -> Path:
        config = composed(*overrides)
        run = RunPaths(tmp_path / "earlier/first")
        preprocessing = build_preprocessing(config)
        labels = LabelsMapping.from_classes({"23": 0, "7": 1}, preprocessing)
        begin_run(run, config, labels)
        release_lock(run)
        network = build_network(config, labels.classes, preprocessing.size)
        state = {f"backbone.{name}": value for name, value in network.state_dict().items()}
        AtomicCheckpointIO().save_checkpoint({"state_dict": state}, run.best)
        return run.path

    return make


def write_split(folder: Path, labels: Sequence[str]) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(len(labels))
    rows = []
    for number, label in enumerate(labels):
        Image.fromarray(rng.integers(0, 256, (24, 16, 3), dtype=np.uint8)).save(
            folder / f"{number}.png"
        )
        rows.append(json.dumps({"image": f"{number}.png", "suffix": label}))
    (folder / "annotations.jsonl").write_text("\n".join(rows) + "\n")
