import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cls_models import SmallConv2d, build_backbone, replace_small_convs
from cls_models.acceleration.small_conv import MIN_CHANNELS, _TapProducts


def build_pair(outputs: int, stride: int = 1, kernel: int = 3) -> tuple[nn.Conv2d, nn.Conv2d]:
    """Return a plain and a small convolution with the same weights."""
    plain = nn.Conv2d(MIN_CHANNELS, outputs, kernel, stride, padding=kernel // 2, bias=False)
    holder = nn.Sequential(copy.deepcopy(plain))
    assert replace_small_convs(holder) == 1
    return plain, holder[0]


@given(
    st.integers(1, 4),
    st.integers(1, 5),
    st.integers(1, 5),
    st.integers(1, 5),
    st.integers(1, 5),
    st.sampled_from((1, 2)),
    st.sampled_from((1, 3)),
    st.sampled_from((torch.contiguous_format, torch.channels_last)),
)
@settings(deadline=None, max_examples=100)
def test_products_equal_the_convolution_and_its_gradients(
    batch: int,
    inputs: int,
    outputs: int,
    height: int,
    width: int,
    stride: int,
    kernel: int,
    layout: torch.memory_format,
) -> None:
    torch.manual_seed(batch + 10 * height + 100 * width)
    plain = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False).to(
        memory_format=layout
    )
    images = torch.randn(batch, inputs, height, width).to(memory_format=layout).requires_grad_()
    expected = plain(images)
    output = _TapProducts.apply(images, plain.weight, stride)
    assert output.shape == expected.shape
    assert torch.allclose(output, expected, atol=1e-5)
    gradient = torch.randn_like(expected)
    expected_gradients = torch.autograd.grad(expected, (images, plain.weight), gradient)
    gradients = torch.autograd.grad(output, (images, plain.weight), gradient)
    for actual, target in zip(gradients, expected_gradients, strict=True):
        assert torch.allclose(actual, target, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "as_products"), [((4, 2), True), ((8, 1), True), ((2, 1), True), ((3, 3), False)]
)
def test_small_conv_uses_products_only_for_small_maps_in_training_mode(
    size: tuple[int, int], as_products: bool
) -> None:
    _, conv = build_pair(4)
    images = torch.randn(2, MIN_CHANNELS, *size)
    assert ("_TapProducts" in _grad_fn_name(conv.train()(images))) == as_products
    assert "_TapProducts" not in _grad_fn_name(conv.eval()(images))


@pytest.mark.parametrize("frozen", ["weight", "images"])
def test_gradient_is_unchanged_when_the_other_input_is_frozen(frozen: str) -> None:
    _, conv = build_pair(4)
    images = torch.randn(2, MIN_CHANNELS, 3, 2, requires_grad=True)
    trained = images if frozen == "weight" else conv.weight
    (expected,) = torch.autograd.grad(conv.train()(images).square().sum(), trained)
    (conv.weight if frozen == "weight" else images).requires_grad_(False)
    (alone,) = torch.autograd.grad(conv(images).square().sum(), trained)
    assert torch.equal(alone, expected)


def test_small_conv_compiles_to_one_graph_with_a_convolution() -> None:
    plain, conv = build_pair(4)
    compiled = torch.compile(conv.train(), fullgraph=True, backend="aot_eager")
    images = torch.randn(2, MIN_CHANNELS, 2, 2)
    assert torch.allclose(compiled(images), plain(images), atol=1e-6)


def _grad_fn_name(output: torch.Tensor) -> str:
    assert output.grad_fn is not None
    return output.grad_fn.name()


def test_small_conv_uses_the_convolution_in_other_precisions() -> None:
    plain, conv = build_pair(4)
    for dtype in (torch.float64, torch.bfloat16):
        images = torch.randn(2, MIN_CHANNELS, 2, 2, dtype=dtype)
        assert torch.equal(conv.to(dtype)(images), plain.to(dtype)(images))


def test_small_conv_uses_the_convolution_under_autocast() -> None:
    plain, conv = build_pair(4)
    images = torch.randn(2, MIN_CHANNELS, 2, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output, expected = conv.train()(images), plain(images)
    assert output.dtype == torch.bfloat16
    assert torch.equal(output, expected)
    output.float().sum().backward()
    assert conv.weight.grad is not None


def test_training_with_products_gives_the_loss_of_the_convolution() -> None:
    losses = []
    for layer in build_pair(4, 2):
        torch.manual_seed(1)
        model = nn.Sequential(
            layer.to(memory_format=torch.channels_last), nn.Flatten(), nn.Linear(8, 2)
        ).train()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        images, labels = torch.randn(8, MIN_CHANNELS, 4, 2), torch.arange(8) % 2
        for _ in range(10):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_replace_small_convs_keeps_parameters_names_and_logits() -> None:
    torch.manual_seed(0)
    network = build_backbone("resnet18", 5)
    original = copy.deepcopy(network)
    parameters = dict(network.named_parameters())
    assert replace_small_convs(network) == 13
    assert replace_small_convs(network) == 0, "all were replaced before"
    assert all(parameter is parameters[name] for name, parameter in network.named_parameters())
    assert list(network.state_dict()) == list(original.state_dict())
    images = torch.randn(4, 3, 48, 32)
    assert torch.allclose(network.train()(images), original.train()(images), atol=1e-4)
    assert torch.equal(copy.deepcopy(network).eval()(images), network.eval()(images))


def test_replace_small_convs_skips_unsupported_layers() -> None:
    def conv(kernel: int = 3, channels: int = MIN_CHANNELS, **others: Any) -> nn.Conv2d:
        return nn.Conv2d(
            channels, channels, kernel, **{"padding": kernel // 2, "bias": False, **others}
        )

    layers = nn.Sequential(
        conv(groups=2),
        conv(dilation=2, padding=2),
        conv(bias=True),
        conv(5),
        conv(padding=0),
        conv(1, padding=1),
        conv(padding_mode="reflect"),
        conv(stride=3),
        conv(channels=MIN_CHANNELS - 1),
    )
    assert replace_small_convs(layers) == 0
    assert not any(isinstance(layer, SmallConv2d) for layer in layers)
    assert replace_small_convs(nn.Sequential(conv(), conv(1), conv(stride=2))) == 3


def test_replace_small_convs_skips_layers_with_hooks() -> None:
    seen: list[torch.Tensor] = []
    plain, _ = build_pair(MIN_CHANNELS)
    layers = nn.Sequential(plain, _weight_normed())
    layers[0].register_forward_hook(lambda _, inputs, output: seen.append(output))
    assert replace_small_convs(layers) == 0
    assert len(seen) == 0
    layers(torch.randn(2, MIN_CHANNELS, 2, 2))
    assert len(seen) == 1


def _weight_normed() -> nn.Module:
    """Return a layer with a hook that computes its weight before each forward."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return torch.nn.utils.weight_norm(nn.Conv2d(MIN_CHANNELS, 4, 3, padding=1, bias=False))


def test_onnx_export_contains_the_convolution(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    _, conv = build_pair(4)
    path = tmp_path / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside the exporter
        torch.onnx.export(
            conv.eval(),
            (torch.randn(2, MIN_CHANNELS, 2, 2),),
            str(path),
            dynamo=True,
            verbose=False,
        )
    assert [node.op_type for node in onnx.load(path).graph.node] == ["Conv"]
