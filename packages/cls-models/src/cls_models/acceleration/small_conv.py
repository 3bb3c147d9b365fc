"""Convolutions of small feature maps as matrix products, which train faster on a CPU.

In the last stages of a network on small crops, a 3x3 convolution covers maps such as 3x2 or 2x1,
where many of its taps fall on padding and the library's backward pass reaches a fraction of the
processor's speed. Here each tap of the kernel multiplies the pixels that it covers by its own
weight matrix: no tap multiplies padding, and channels-last weights need no copy.
`benchmarks/cpu_layers.py` measures the gain: `convolutions` for single layers (1.0 to 7 times as
fast), `networks` for a ResNet-18.

Shapes: B images, I input channels, O output channels, H x W input pixels, P x Q output pixels.
"""

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

MIN_CHANNELS = 128
"""Smallest number of input channels; with fewer, the products are too small to pay off."""
MAX_POSITIONS = 16
"""Largest P * Q for which products pay off; the limit is also I / 16."""


class SmallConv2d(nn.Conv2d):
    """A 3x3 or 1x1 convolution of stride 1 or 2 that trains on small maps as matrix products.

    It uses products in training mode on a CPU in float32, and `torch.nn.Conv2d` otherwise, so also
    in evaluation and export. The order of sums differs, so results differ by rounding.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # nn.Conv2d's parameter name
        """Map float [B, I, H, W] to [B, O, ceil(H / stride), ceil(W / stride)]."""
        if not self._should_use_products(input):
            return super().forward(input)
        output = _TapProducts.apply(input, self.weight, self.stride[0])
        return cast("Tensor", output)

    def _should_use_products(self, images: Tensor) -> bool:
        height, width = images.shape[2:]
        stride = self.stride[0]
        positions = _output_length(height, stride) * _output_length(width, stride)
        return (
            self.training
            and positions <= min(MAX_POSITIONS, self.in_channels // 16)
            and images.device.type == "cpu"
            and images.dtype == self.weight.dtype == torch.float32
            and not torch.is_autocast_enabled("cpu")  # autocast requests bfloat16 convolutions
            and not torch.compiler.is_compiling()  # the autograd function would break the graph
        )


def replace_small_convs(module: nn.Module) -> int:
    """Replace each supported convolution by a `SmallConv2d` with the same parameter objects.

    Supported are 3x3 kernels with padding 1 and 1x1 kernels, of stride 1 or 2, with at least
    `MIN_CHANNELS` input channels, without groups, dilation, bias, or hooks. Returns the number of
    replaced layers.
    """
    count = 0
    for parent in module.modules():
        for name, child in parent.named_children():
            if type(child) is nn.Conv2d and _is_supported(child):
                setattr(parent, name, _convert(child))
                count += 1
    return count


def _is_supported(conv: nn.Conv2d) -> bool:
    has_supported_kernel = (conv.kernel_size, conv.padding) in (
        ((3, 3), (1, 1)),
        ((1, 1), (0, 0)),
    )
    # Replacing a layer would drop its hooks. Weight norm is a hook, and its weight no parameter.
    has_hooks = conv._forward_pre_hooks or conv._forward_hooks or conv._backward_hooks
    return (
        has_supported_kernel
        and not has_hooks
        and conv.stride in ((1, 1), (2, 2))
        and conv.dilation == (1, 1)
        and conv.in_channels >= MIN_CHANNELS
        and conv.groups == 1
        and conv.bias is None
        and conv.padding_mode == "zeros"
    )


def _convert(conv: nn.Conv2d) -> SmallConv2d:
    kernel = conv.kernel_size[0]
    small = SmallConv2d(
        conv.in_channels,
        conv.out_channels,
        kernel,
        conv.stride[0],
        kernel // 2,
        bias=False,
        device="meta",  # allocate nothing: the weights are those of the given layer
    )
    small.weight = conv.weight
    small.train(conv.training)
    return small


@dataclass(frozen=True, slots=True)
class _Tap:
    """One kernel position, and the output pixels that it connects to input pixels."""

    row: int
    column: int
    outputs: tuple[slice, slice, slice]
    """Index into [B, P, Q, O]."""
    inputs: tuple[slice, slice, slice]
    """Index into [B, H, W, I]."""


def _list_taps(kernel: int, height: int, width: int, stride: int) -> list[_Tap]:
    """Return the taps that cover any pixel; the center tap, which covers all outputs, is first."""
    center = kernel // 2
    every = slice(None)
    taps: list[_Tap] = []
    for row in range(kernel):
        for column in range(kernel):
            rows = _overlap(row - center, height, stride)
            columns = _overlap(column - center, width, stride)
            if rows is not None and columns is not None:
                outputs = (every, rows[0], columns[0])
                inputs = (every, rows[1], columns[1])
                tap = _Tap(row, column, outputs, inputs)
                if row == column == center:
                    taps.insert(0, tap)
                else:
                    taps.append(tap)
    return taps


def _overlap(offset: int, length: int, stride: int) -> tuple[slice, slice] | None:
    """Return the outputs whose input at `offset` exists, and those inputs, along one axis."""
    first = 1 if offset < 0 else 0
    last_with_input = (length - 1 - offset) // stride
    last = min(_output_length(length, stride) - 1, last_with_input)
    if last < first:
        return None
    start = first * stride + offset
    stop = start + (last - first) * stride + 1
    return slice(first, last + 1), slice(start, stop, stride)


def _output_length(length: int, stride: int) -> int:
    return (length - 1) // stride + 1


class _TapProducts(torch.autograd.Function):
    """A convolution with padding kernel // 2, computed in NHWC; each tap has [O, I] weights."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, stride: int) -> Tensor:
        batch, channels, height, width = images.shape
        pixels = images.permute(0, 2, 3, 1)
        tap_weights = weight.permute(2, 3, 0, 1)
        output_shape = (_output_length(height, stride), _output_length(width, stride))
        output = pixels.new_empty(batch, *output_shape, len(weight))
        taps = _list_taps(weight.shape[-1], height, width, stride)

        tap_pixels: list[Tensor] = []
        for tap in taps:
            covered = pixels[tap.inputs].reshape(-1, channels)
            matrix = tap_weights[tap.row, tap.column].t()
            if not tap_pixels:  # the center tap initializes every output
                torch.mm(covered, matrix, out=output.view(-1, len(weight)))
            else:
                target = output[tap.outputs]
                target += (covered @ matrix).view(target.shape)
            tap_pixels.append(covered)

        ctx.save_for_backward(weight, *tap_pixels)
        ctx.taps = taps
        ctx.pixels_shape = pixels.shape
        return output.permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        weight, *tap_pixels = ctx.saved_tensors
        needs_images, needs_weight, _ = ctx.needs_input_grad
        output_gradient = gradients[0].permute(0, 2, 3, 1)
        tap_gradients = [output_gradient[tap.outputs].reshape(-1, len(weight)) for tap in ctx.taps]

        image_gradient = None
        weight_gradient = None
        if needs_images:
            pixel_gradient = output_gradient.new_zeros(ctx.pixels_shape)
            image_gradient = _image_gradient(ctx.taps, weight, tap_gradients, pixel_gradient)
        if needs_weight:
            weight_gradient = _weight_gradient(ctx.taps, weight, tap_gradients, tap_pixels)
        return image_gradient, weight_gradient, None


def _image_gradient(
    taps: list[_Tap], weight: Tensor, tap_gradients: list[Tensor], pixel_gradient: Tensor
) -> Tensor:
    """Add each tap's gradient to `pixel_gradient` [B, H, W, I], and return it as [B, I, H, W]."""
    tap_weights = weight.permute(2, 3, 0, 1)
    for tap, gradient in zip(taps, tap_gradients, strict=True):
        target = pixel_gradient[tap.inputs]
        product = gradient @ tap_weights[tap.row, tap.column]
        target += product.view(target.shape)
    return pixel_gradient.permute(0, 3, 1, 2)


def _weight_gradient(
    taps: list[_Tap], weight: Tensor, tap_gradients: list[Tensor], tap_pixels: list[Tensor]
) -> Tensor:
    """Return the gradient of the weight, [O, I, K, K], in channels-last memory.

    In this layout, each product is written in place. Taps that cover no pixel get zeros.
    """
    channels_out, channels_in, kernel, _ = weight.shape
    result = torch.empty(channels_out, kernel, kernel, channels_in)
    if len(taps) < kernel * kernel:
        result.zero_()

    for tap, gradient, pixels in zip(taps, tap_gradients, tap_pixels, strict=True):
        torch.mm(gradient.t(), pixels, out=result[:, tap.row, tap.column])
    return result.permute(0, 3, 1, 2)
