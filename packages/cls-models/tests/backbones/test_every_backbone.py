"""Each of torchvision's classifiers: one step of training, then the same answers from onnxruntime."""

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

from cls_models.backbones.heads import head, head_name
from cls_models.backbones.torchvision_backbones import BACKBONES, build_backbone

CLASSES = 7
TOLERANCE = 1e-3
PROTOBUF_LIMIT = 2**31
"""Bytes that an ONNX file can hold; weights above it can only lie in a second file."""

SIDES = {"inception_v3": 139, "maxvit_t": 224, "vit_h_14": 56}
"""Pixels; all others take 64. At 32 the last maps are single pixels, over which a small batch has no variance;
Inception at less than 139 is so ill-conditioned before it is trained that float32 and float64 differ by 5e-4."""

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

DEAR = ("densenet121", "inception_v3", "maxvit_t")  # more than ten seconds each


class WithoutMemory(TorchFunctionMode):
    """Parameters are made as shapes alone, and all else as ever: RegNet computes its widths with tensors."""

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
    """Emptied after each test: all these files together would be 20 GB."""
    yield tmp_path
    shutil.rmtree(tmp_path)


def test_there_are_the_classifiers_of_torchvision() -> None:
    assert len(BACKBONES) >= 80
    assert set(SMALLEST_OF_FAMILIES) | SIDES.keys() <= set(BACKBONES)


@pytest.mark.parametrize("name", BACKBONES)
def test_the_head_is_found_and_has_a_row_for_each_class(name: str) -> None:
    with WithoutMemory():
        backbone = build_backbone(name, CLASSES)
    last = head(backbone)
    assert len(last.weight) == CLASSES
    assert backbone.state_dict()[f"{head_name(backbone)}.weight"] is not None
    others = [
        module for module in backbone.modules() if getattr(module, "out_features", None) == CLASSES
    ]
    assert others in ([last], []), "no auxiliary head"


@pytest.mark.parametrize("name", [name for name in SMALLEST_OF_FAMILIES if name not in DEAR])
def test_the_smallest_of_each_family_trains_and_exports(name: str, folder: Path) -> None:
    train_export_compare(name, folder)


@pytest.mark.slow
@pytest.mark.skipif(
    "EVERY_BACKBONE" not in os.environ, reason="a quarter of an hour: set EVERY_BACKBONE=1"
)
@pytest.mark.parametrize(
    "name", [name for name in BACKBONES if name not in SMALLEST_OF_FAMILIES or name in DEAR]
)
def test_every_other_one_trains_and_exports(name: str, folder: Path) -> None:
    train_export_compare(name, folder)


def train_export_compare(name: str, folder: Path) -> float:
    """Return the largest difference of a logit."""
    torch.manual_seed(0)
    side = SIDES.get(name, 64)
    backbone = build_backbone(name, CLASSES, image_size=(side, side), stem="standard")
    train_one_step(backbone, torch.randn(4, 3, side, side))
    # Not before: where nothing can be exported, the step is tested all the same.
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    ort = pytest.importorskip("onnxruntime")
    settle_statistics(backbone, torch.randn(4 if side > 128 else 32, 3, side, side))
    export(backbone.eval(), torch.zeros(2, 3, side, side), folder / "model.onnx")
    images = torch.randn(3, 3, side, side)
    with torch.inference_mode():
        expected: Tensor = backbone(images)
    del backbone
    session = ort.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    answers = session.run(["logits"], {"images": images.numpy()})[0]
    assert answers.shape == (3, CLASSES)
    difference = float(np.abs(answers - expected.numpy()).max())
    spread = float(
        expected.std(dim=0).max()
    )  # from image to image: 1e-3 says nothing where logits hardly differ
    assert difference <= TOLERANCE * min(1, spread), (
        f"{difference:.3g} where logits spread over {spread:.3g}"
    )
    print(
        f"{name}: largest difference {difference:.2e}, logits up to {float(expected.abs().max()):.2e}"
    )
    return difference


def train_one_step(backbone: nn.Module, images: Tensor) -> None:
    before = head(backbone).weight.detach().clone()
    logits = backbone.train()(images)
    assert isinstance(logits, Tensor), "plain logits while training too"
    assert logits.shape == (len(images), CLASSES)
    functional.cross_entropy(logits, torch.arange(len(images))).backward()
    torch.optim.SGD(backbone.parameters(), lr=1e-3).step()
    backbone.zero_grad(set_to_none=True)
    assert not torch.equal(before, head(backbone).weight)


def settle_statistics(backbone: nn.Module, images: Tensor) -> None:
    """Let batch norms hold what flows through them, as after a long training: or logits vanish, or are billions.

    Blocks of a deep ResNet come nearer to the identity, as they do in training: 152 random layers amplify the rounding
    of float32 alone to 9e-4.
    """
    for layer in backbone.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0
        elif isinstance(layer, Bottleneck):
            nn.init.constant_(layer.bn3.weight, 0.2)
    with torch.no_grad():
        backbone.train()(images)


def export(backbone: nn.Module, example: Tensor, path: Path) -> None:
    """As cls_export does, but for networks that no single file can hold."""
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
