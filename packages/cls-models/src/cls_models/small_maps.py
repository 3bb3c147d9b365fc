"""Convolutions of maps of a few pixels as one matrix product, which a CPU trains faster.

In the last stages of a network that sees small crops, a 3x3 convolution covers maps such as 2x1 or 2x2, where most of
its taps fall on the padding and the library's backward pass reaches a fraction of the processor's speed: on ResNet-18
at 48x32 px, 28 % of a step was the backward pass of three such layers. The same linear map, written out as a matrix
from all input values to all output values, is one product without the taps that meet padding. What it brings is
measured by `benchmarks/training.py layouts`.

Shapes: B images, I and O channels in and out, P and Q positions of the output and of the input map.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn

MOST_PAIRS = 16
"""Of an output and an input position, for a convolution to be written out: a 2x2 map to another, 4x2 to 2x1. The matrix
grows with their number; with 64 pairs there is nothing left to gain."""


class SmallMapConv2d(nn.Conv2d):
    """A 3x3 convolution, padded by 1, that trains on a CPU as a matrix product where its map is small enough.

    Everywhere else, so in evaluation and export too, it is `torch.nn.Conv2d`. Sums run in another order than there,
    so results differ by rounding.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # nn.Conv2d's name for it
        """Map float [B, I, H, W] to [B, O, ceil(H / stride), ceil(W / stride)]."""
        height, width = input.shape[2:]
        pairs = height * width * _after(height, self.stride[0]) * _after(width, self.stride[0])
        written_out = (
            self.training
            and pairs <= MOST_PAIRS
            and input.device.type == "cpu"
            and input.dtype == self.weight.dtype == torch.float32
            and not torch.is_autocast_enabled("cpu")  # which asks for convolutions in bfloat16
        )
        if not written_out:
            return super().forward(input)
        return cast("Tensor", _WrittenOut.apply(input, self.weight, self.stride[0]))


def write_out_small_maps(module: nn.Module) -> int:
    """Let every convolution that can be written out be so where it pays; parameters and their names stay.

    Returns:
        How many there are: 3x3, padded by 1, neither grouped nor dilated, without bias, of a stride of 1 or 2, and
        without hooks.
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
        conv.kernel_size == (3, 3)
        and conv.padding == (1, 1)
        and conv.stride in ((1, 1), (2, 2))
        and conv.dilation == (1, 1)
        and conv.groups == 1
        and conv.bias is None
        and conv.padding_mode == "zeros"
        # A hook would stay behind on the layer that is replaced; weight norm is one, and its weight no parameter.
        and not (conv._forward_pre_hooks or conv._forward_hooks or conv._backward_hooks)
    )


def _converted(conv: nn.Conv2d) -> SmallMapConv2d:
    made = SmallMapConv2d(
        conv.in_channels, conv.out_channels, 3, conv.stride[0], padding=1, bias=False, device="meta"
    )  # on no device: the weights are the given layer's own
    made.weight = conv.weight
    made.train(conv.training)
    return made


def _after(length: int, stride: int) -> int:
    return (length - 1) // stride + 1


def _taps(height: int, width: int, stride: int) -> list[tuple[int, int, int, int]]:
    """Return output position, input position, and row and column of the tap that joins them."""
    taps = []
    wide = _after(width, stride)
    for out_y in range(_after(height, stride)):
        for out_x in range(wide):
            for y in range(max(0, out_y * stride - 1), min(height, out_y * stride + 2)):
                for x in range(max(0, out_x * stride - 1), min(width, out_x * stride + 2)):
                    place = out_y * wide + out_x, y * width + x
                    taps.append((*place, y - out_y * stride + 1, x - out_x * stride + 1))
    return taps


class _WrittenOut(torch.autograd.Function):
    """Channels lie innermost throughout, so that every block of the matrix is copied in runs of I values."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, stride: int) -> Tensor:
        batch, _, height, width = images.shape
        out_height, out_width = _after(height, stride), _after(width, stride)
        flat = images.permute(0, 2, 3, 1).reshape(batch, -1)
        taps = _taps(height, width, stride)
        matrix = _matrix(weight, taps, out_height * out_width, height * width)
        ctx.save_for_backward(flat, matrix)
        ctx.taps, ctx.shape, ctx.kernel = taps, images.shape, weight.shape
        made = flat @ matrix.t()
        return made.view(batch, out_height, out_width, -1).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        flat, matrix = ctx.saved_tensors
        batch, channels, height, width = ctx.shape
        out_channels = ctx.kernel[0]
        gradient = gradients[0].permute(0, 2, 3, 1).reshape(batch, -1)
        of_images = (gradient @ matrix).view(batch, height, width, channels).permute(0, 3, 1, 2)
        of_matrix = (gradient.t() @ flat).view(-1, out_channels, height * width, channels)
        of_weight = torch.zeros(out_channels, 3, 3, channels)
        for out_place, place, row, column in ctx.taps:
            of_weight[:, row, column] += of_matrix[out_place, :, place]
        return of_images, of_weight.permute(0, 3, 1, 2), None


def _matrix(weight: Tensor, taps: list[tuple[int, int, int, int]], outputs: int, inputs: int) -> Tensor:
    """Return float32 [P * O, Q * I]: what each input value adds to each output value."""
    kernel = weight.permute(0, 2, 3, 1)
    whole = len(taps) == outputs * inputs  # no pair is too far apart: every block will be filled
    make = torch.empty if whole else torch.zeros
    matrix = make(outputs, weight.shape[0], inputs, weight.shape[1])
    for out_place, place, row, column in taps:
        matrix[out_place, :, place] = kernel[:, row, column]
    return matrix.view(outputs * weight.shape[0], -1)
