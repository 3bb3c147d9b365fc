"""Train every torchvision classifier for one step, and compare its logits with onnxruntime's."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torchvision.models.resnet import Bottleneck

from cls_models.backbones.heads import find_head_name, get_head
from cls_models.backbones.torchvision_backbones import BACKBONES, build_backbone

CLASSES = 7
TOLERANCE = 1e-3
PROTOBUF_LIMIT = 2**31
"""Largest size of an ONNX file in bytes; larger weights need a second file."""

SIDES = {"inception_v3": 139, "maxvit_t": 224, "vit_h_14": 56}
"""Image sides in pixels; all other networks use 64.

At 32 the last maps are single pixels, which have no variance in a small batch. Below 139, an
untrained Inception is so ill-conditioned that float32 and float64 differ by 5e-4."""

SMALLEST_OF_FAMILIES = (
    "alexnet",
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "googlenet",
    "inception_v3",
    "maxvit_t",
    "mnasnet0_5",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "regnet_x_400mf",
    "resnet18",
    "shufflenet_v2_x0_5",
    "squeezenet1_1",
    "swin_t",
    "vgg11",
    "vit_b_32",
)

SLOW = ("densenet121", "inception_v3", "maxvit_t")  # more than ten seconds each

EXPORTED = (
    "alexnet",  # a map that is smaller than its pooled form
    "convnext_tiny",
    "efficientnet_b0",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "shufflenet_v2_x0_5",
    "squeezenet1_1",  # concatenation, and pooling of partial windows
    "swin_t",
    "vit_b_32",
)
"""Together with the ResNet of tests/test_end_to_end.py they have the operators of all families
but `SLOW`."""


class EmptyOnMeta(TorchFunctionMode):
    """Create empty tensors on meta, and others as usual: RegNet computes widths with tensors."""

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        device = {"device": "meta"} if func is torch.empty else {}
        return func(*args, **{**(kwargs or {}), **device})


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that is deleted after each test, because all files together take 20 GB."""
    yield tmp_path
    shutil.rmtree(tmp_path)


def test_backbones_lists_all_torchvision_classifiers() -> None:
    assert len(BACKBONES) >= 80
    assert set(SMALLEST_OF_FAMILIES) | SIDES.keys() <= set(BACKBONES)


@pytest.mark.parametrize("name", BACKBONES)
def test_head_has_one_row_per_class_for_every_backbone(name: str) -> None:
    with EmptyOnMeta():
        backbone = build_backbone(name, CLASSES)
    head = get_head(backbone)
    assert len(head.weight) == CLASSES
    assert backbone.state_dict()[f"{find_head_name(backbone)}.weight"] is not None
    sized = [
        module for module in backbone.modules() if getattr(module, "out_features", None) == CLASSES
    ]
    assert sized in ([head], []), "no auxiliary head"


@pytest.mark.parametrize("name", [name for name in SMALLEST_OF_FAMILIES if name not in SLOW])
def test_smallest_backbone_of_each_family_trains(name: str) -> None:
    train_one_step(*build_with_images(name))


@pytest.mark.parametrize("name", EXPORTED)
def test_backbones_of_each_kind_export(name: str, folder: Path) -> None:
    train_export_compare(name, folder)


@pytest.mark.slow
@pytest.mark.skipif(
    "EVERY_BACKBONE" not in os.environ, reason="a quarter of an hour: set EVERY_BACKBONE=1"
)
@pytest.mark.parametrize("name", [name for name in BACKBONES if name not in EXPORTED])
def test_every_other_backbone_trains_and_exports(name: str, folder: Path) -> None:
    train_export_compare(name, folder)


def build_with_images(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    side = SIDES.get(name, 64)
    backbone = build_backbone(name, CLASSES, image_size=(side, side), stem="standard")
    return backbone, torch.randn(4, 3, side, side)


def train_export_compare(name: str, folder: Path) -> float:
    """Return the largest difference between logits."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    ort = pytest.importorskip("onnxruntime")
    backbone, images = build_with_images(name)
    train_one_step(backbone, images)
    side = SIDES.get(name, 64)
    settle_statistics(backbone, torch.randn(4 if side > 128 else 32, 3, side, side))
    export(backbone.eval(), torch.zeros(2, 3, side, side), folder / "model.onnx")
    images = torch.randn(3, 3, side, side)
    with torch.inference_mode():
        expected: Tensor = backbone(images)
    del backbone
    session = ort.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    logits = session.run(["logits"], {"images": images.numpy()})[0]
    assert logits.shape == (3, CLASSES)
    difference = float(np.abs(logits - expected.numpy()).max())
    # Standard deviation between images; 1e-3 is too tolerant if logits differ by less.
    spread = float(expected.std(dim=0).max())
    assert difference <= TOLERANCE * min(1, spread), (
        f"difference {difference:.3g}, standard deviation {spread:.3g}"
    )
    largest = float(expected.abs().max())
    print(f"{name}: largest difference {difference:.2e}, logits up to {largest:.2e}")
    return difference


def train_one_step(backbone: nn.Module, images: Tensor) -> None:
    before = get_head(backbone).weight.detach().clone()
    logits = backbone.train()(images)
    assert isinstance(logits, Tensor), "plain logits in training mode too"
    assert logits.shape == (len(images), CLASSES)
    functional.cross_entropy(logits, torch.arange(len(images))).backward()
    torch.optim.SGD(backbone.parameters(), lr=1e-3).step()
    backbone.zero_grad(set_to_none=True)
    assert not torch.equal(before, get_head(backbone).weight)


def settle_statistics(backbone: nn.Module, images: Tensor) -> None:
    """Set batch norm statistics to those of the images, as after training.

    Logits would otherwise vanish or reach billions. Residual blocks are scaled towards the
    identity, as in a trained ResNet, because 152 random layers amplify float32 rounding to 9e-4.
    """
    for layer in backbone.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0
        elif isinstance(layer, Bottleneck):
            nn.init.constant_(layer.bn3.weight, 0.2)
    with torch.no_grad():
        backbone.train()(images)


def export(backbone: nn.Module, example: Tensor, path: Path) -> None:
    """Export like cls_export, but with external data for networks above 2 GiB."""
    size = sum(tensor.numel() * tensor.element_size() for tensor in backbone.state_dict().values())
    torch.onnx.export(
        backbone,
        (example,),
        path,
        dynamo=True,
        verbose=False,
        opset_version=18,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        external_data=size >= PROTOBUF_LIMIT,
    )
