"""Convolutions of maps of a few pixels as matrix products, one for each tap, which a CPU trains faster.

In the last stages of a network that sees small crops, a 3x3 convolution covers maps such as 3x2 or 2x1, where many of
its taps fall on the padding and the library's backward pass reaches a fraction of the processor's speed. Here each tap
of the kernel is a product of the pixels that it meets by its own matrix of weights: none meets padding, and with
weights that lie channels-last no weight is moved. What it brings is measured by `benchmarks/training.py`: for single
layers by `small-maps` (1.0 to 7 times as fast), for a ResNet-18 by `layouts`.

Shapes: B images, I and O channels in and out, H x W pixels of the input map, P x Q of the output map.
"""

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

LEAST_CHANNELS = 128
"""Of an input: with fewer, the products are too small to pay."""
MOST_POSITIONS = 16
"""Of an output map, P * Q, for which products pay; and no more than a sixteenth of the input's channels."""


class SmallConv2d(nn.Conv2d):
    """A 3x3 or 1x1 convolution of unmoved size or half, that trains on a CPU as products where its map is small enough.

    Everywhere else, so in evaluation and export too, it is `torch.nn.Conv2d`. Sums run in another order than there,
    so results differ by rounding.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # nn.Conv2d's name for it
        """Map float [B, I, H, W] to [B, O, ceil(H / stride), ceil(W / stride)]."""
        height, width = input.shape[2:]
        positions = _after(height, self.stride[0]) * _after(width, self.stride[0])
        as_products = (
            self.training
            and positions <= min(MOST_POSITIONS, self.in_channels // 16)
            and input.device.type == "cpu"
            and input.dtype == self.weight.dtype == torch.float32
            and not torch.is_autocast_enabled("cpu")  # which asks for convolutions in bfloat16
            and not torch.compiler.is_compiling()  # whose graph would break here
        )
        if not as_products:
            return super().forward(input)
        return cast("Tensor", _Products.apply(input, self.weight, self.stride[0]))


def replace_small_convs(module: nn.Module) -> int:
    """Let every convolution that can train as products do so where it pays; parameters and their names stay.

    Returns:
        How many there are: 3x3, padded by 1, or 1x1, of `LEAST_CHANNELS` or more, neither grouped nor dilated, without
        bias, of a stride of 1 or 2, and without hooks.
    """
    found = 0
    for parent in module.modules():
        for name, child in parent.named_children():
            if type(child) is nn.Conv2d and _can_be_written_out(child):
                setattr(parent, name, _converted(child))
                found += 1
    return found


def _can_be_written_out(conv: nn.Conv2d) -> bool:
    return (
        (conv.kernel_size, conv.padding) in (((3, 3), (1, 1)), ((1, 1), (0, 0)))
        and conv.stride in ((1, 1), (2, 2))
        and conv.dilation == (1, 1)
        and conv.in_channels >= LEAST_CHANNELS
        and conv.groups == 1
        and conv.bias is None
        and conv.padding_mode == "zeros"
        # A hook would stay behind on the layer that is replaced; weight norm is one, and its weight no parameter.
        and not (conv._forward_pre_hooks or conv._forward_hooks or conv._backward_hooks)
    )


def _converted(conv: nn.Conv2d) -> SmallConv2d:
    kernel, stride = conv.kernel_size[0], conv.stride[0]
    made = SmallConv2d(
        conv.in_channels, conv.out_channels, kernel, stride, kernel // 2, bias=False, device="meta"
    )  # on no device: the weights are the given layer's own
    made.weight = conv.weight
    made.train(conv.training)
    return made


@dataclass(frozen=True, slots=True)
class _Tap:
    """A tap's row and column in the kernel, and which pixels it joins: of output and input, rows and columns."""

    row: int
    column: int
    outputs: tuple[slice, slice, slice]
    inputs: tuple[slice, slice, slice]


def _taps(kernel: int, height: int, width: int, stride: int) -> list[_Tap]:
    """Return the taps that meet any pixel; first the middle one, which joins every output to an input."""
    met = []
    for row in range(kernel):
        for column in range(kernel):
            rows = _joined(row - kernel // 2, height, stride)
            columns = _joined(column - kernel // 2, width, stride)
            if rows and columns:
                outputs, inputs = zip(rows, columns, strict=True)
                every = slice(None)
                met.append(_Tap(row, column, (every, *outputs), (every, *inputs)))
    return sorted(met, key=lambda tap: (tap.row, tap.column) != (kernel // 2, kernel // 2))


def _joined(offset: int, length: int, stride: int) -> tuple[slice, slice] | None:
    """Return along one axis the outputs whose input, `offset` beside their own, is there, and those inputs."""
    first = 1 if offset < 0 else 0
    last = min(_after(length, stride) - 1, (length - 1 - offset) // stride)
    if last < first:
        return None
    start = first * stride + offset
    return slice(first, last + 1), slice(start, start + (last - first) * stride + 1, stride)


def _after(length: int, stride: int) -> int:
    return (length - 1) // stride + 1


class _Products(torch.autograd.Function):
    """A convolution, padded by half its kernel. Channels lie innermost throughout; a tap's weights are [O, I]."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, stride: int) -> Tensor:
        batch, channels, height, width = images.shape
        pixels, by_tap = images.permute(0, 2, 3, 1), weight.permute(2, 3, 0, 1)
        made = pixels.new_empty(
            batch, _after(height, stride), _after(width, stride), weight.shape[0]
        )
        taps, met = _taps(weight.shape[-1], height, width, stride), []
        for place, tap in enumerate(taps):
            met.append(pixels[tap.inputs].reshape(-1, channels))
            if place == 0:
                torch.mm(met[0], by_tap[tap.row, tap.column].t(), out=made.view(-1, made.shape[-1]))
            else:
                part = made[tap.outputs]
                part += (met[-1] @ by_tap[tap.row, tap.column].t()).view(part.shape)
        ctx.save_for_backward(weight, *met)
        ctx.taps, ctx.shape = taps, pixels.shape
        return made.permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        weight, *met = ctx.saved_tensors
        by_tap = weight.permute(2, 3, 0, 1)
        of_output = gradients[0].permute(0, 2, 3, 1)
        for_images, for_weight, _ = ctx.needs_input_grad
        of_pixels = of_output.new_zeros(ctx.shape) if for_images else None
        # Laid out as channels-last weights are, so that the products are written in place. A tap that meets no pixel
        # has no gradient.
        of_taps = (
            torch.empty(len(weight), *by_tap.shape[:2], weight.shape[1]) if for_weight else None
        )
        unmet = {
            (row, column) for row in range(by_tap.shape[0]) for column in range(by_tap.shape[1])
        }
        for tap, pixels in zip(ctx.taps, met, strict=True):
            gradient = of_output[tap.outputs].reshape(-1, len(weight))
            unmet.remove((tap.row, tap.column))
            if of_taps is not None:
                torch.mm(gradient.t(), pixels, out=of_taps[:, tap.row, tap.column])
            if of_pixels is not None:
                part = of_pixels[tap.inputs]
                part += (gradient @ by_tap[tap.row, tap.column]).view(part.shape)
        if of_taps is not None:
            for row, column in unmet:
                of_taps[:, row, column] = 0
        return _channels_first(of_pixels), _channels_first(of_taps), None


def _channels_first(gradient: Tensor | None) -> Tensor | None:
    return None if gradient is None else gradient.permute(0, 3, 1, 2)
