"""Classes of a user package, allowed by `allow_targets`."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cls_export.contract.run_layout import RunPaths
from cls_train.composition.instantiate import check_node
from cls_train.errors import ConfigError
from cls_train.stages.evaluate import evaluate

PACKAGE = "acme_vision"

NETWORK = """
import os
from torch import nn


class TinyNetwork(nn.Module):
    def __init__(self, num_classes: int, channels: int = 8) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, channels, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, images):
        return self.fc(self.layers(images))


def build_network(num_classes: int, channels: int = 8) -> nn.Module:
    return TinyNetwork(num_classes, channels)
"""

CALLBACK = """
from pathlib import Path
from lightning.pytorch import Callback


class EpochCounter(Callback):
    def __init__(self, file: str) -> None:
        self.file = Path(file)

    def on_train_epoch_end(self, trainer, pl_module):
        with self.file.open("a") as stream:
            stream.write(f"epoch {trainer.current_epoch}\\n")
"""

LOSS = """
from torch import nn


class HalvedLoss(nn.CrossEntropyLoss):
    def forward(self, logits, targets):
        return super().forward(logits, targets) / 2
"""

OP = """
from cls_data import AugmentationOp


class Invert(AugmentationOp):
    probability: float = 1.0

    def draw(self, sampler):
        return {"inverted": sampler.bernoulli(self.probability)}

    def apply(self, images, params):
        rows = params["inverted"].nonzero()[0]
        images[rows] = 255 - images[rows]
        return images
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package on the path of this process and of the processes that it starts."""
    folder = tmp_path / "site/acme_vision"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("from acme_vision.networks import build_network\n")
    modules = {"networks": NETWORK, "callbacks": CALLBACK, "losses": LOSS, "ops": OP}
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(folder.parent)
    monkeypatch.setenv("PYTHONPATH", str(folder.parent))
    yield PACKAGE
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


@pytest.mark.slow
def test_a_run_uses_a_network_callback_loss_and_op_of_a_user_package(
    run_app: Any, package: str, tmp_path: Path
) -> None:
    code, message = run_app(
        "debug=tiny",
        "data=synthetic_tiny",
        "callbacks=none",
        "run.name=own",
        f"allow_targets=[{package}]",
        "~model",
        "model._target_=acme_vision.build_network",
        "model.channels=4",
        "loss._target_=acme_vision.losses.HalvedLoss",
        "callbacks.counter._target_=acme_vision.callbacks.EpochCounter",
        "callbacks.counter.file=epochs.txt",
        "augmentation.extra_ops.invert._target_=acme_vision.ops.Invert",
        "augmentation.extra_ops.invert.probability=0.5",
    )
    assert code == 0, message
    assert (tmp_path / "epochs.txt").read_text() == "epoch 0\nepoch 1\n"
    evaluation = json.loads((tmp_path / "runs/own/evaluation.json").read_bytes())
    assert evaluation["onnx"]["max_logit_difference"] < 1e-4
    assert f"allow_targets:\n- {package}\n" in (tmp_path / "runs/own/config.yaml").read_text()


def test_a_refused_target_says_how_to_allow_it(package: str) -> None:
    node = {"_target_": "acme_vision.networks.TinyNetwork"}
    with pytest.raises(ConfigError, match=r"set allow_targets=\[acme_vision\]; .* is not allowed"):
        check_node(node, "model")
    check_node(node, "model", [package])


def test_misspelled_names_of_a_user_package_get_suggestions(package: str) -> None:
    with pytest.raises(ConfigError, match="did you mean 'TinyNetwork'"):
        check_node({"_target_": "acme_vision.networks.TinyNetwrok"}, "model", [package])
    with pytest.raises(ConfigError, match=r"model.chanels: .* did you mean 'channels'"):
        check_node({"_target_": "acme_vision.build_network", "chanels": 3}, "model", [package])


@pytest.mark.parametrize(
    "target", ["acme_vision.networks.os.system", "acme_vision.networks.nn.Flatten"]
)
def test_allowing_a_package_does_not_allow_its_imports(package: str, target: str) -> None:
    with pytest.raises(ConfigError, match="name a class that is defined in an allowed package"):
        check_node({"_target_": target}, "model", [package])


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("allow_targets=[os]", "'os' belongs to Python"),
        ("allow_targets=[shutil.copy]", "'shutil' belongs to Python"),
        ("allow_targets=['a-b']", "'a-b' is not the name of a Python package"),
        ("allow_targets=[no_such_package]", "'no_such_package' is not installed"),
    ],
)
def test_an_unusable_package_is_reported(
    run_app: Any, data_root: Path, setting: str, expected: str
) -> None:
    code, message = run_app("data=jsonl", f"data.root={data_root}", setting)
    assert code == 2
    assert expected in message


def test_evaluating_a_run_folder_needs_its_packages_to_be_allowed_again(
    make_run: Any, package: str
) -> None:
    run = RunPaths(make_run())
    config = run.config.read_text()
    config = config.replace("cls_models.build_backbone", "acme_vision.build_network")
    run.config.write_text(config.replace("allow_targets: []", f"allow_targets: [{package}]"))
    with pytest.raises(ConfigError, match=r"'acme_vision\.build_network' is not allowed"):
        evaluate(run)
