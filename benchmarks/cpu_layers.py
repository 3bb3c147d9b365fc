"""Compare prepared networks and small convolutions with those of torch, on a CPU.

Command:  uv run python benchmarks/cpu_layers.py networks          (about 2 minutes on two cores)
          uv run python benchmarks/cpu_layers.py convolutions      (about 1 minute)
Expected: tables; a prepared ResNet-18 trains 1.4 to 2.0 times faster at 48x32 to 64x64 px.

Candidates are timed in turn; the figures are medians.
"""

import argparse
import copy
import functools
import statistics
from collections.abc import Callable

import torch
from timing import time_in_turns
from torch import Tensor, nn
from torch.nn import functional

from cls_data import keep_freed_memory
from cls_models import build_backbone, build_optimizer, prepare_for_device, replace_small_convs

NETWORK_INPUTS = ((64, 32, 128), (48, 32, 128), (64, 48, 128), (64, 64, 64), (64, 64, 128))
"""Height, width, and batch size."""

CONVOLUTIONS = (
    (3, 512, 512, 2, 1, 1),
    (3, 256, 512, 3, 2, 2),
    (3, 256, 256, 3, 2, 1),
    (3, 128, 256, 6, 4, 2),
    (3, 256, 256, 4, 3, 1),
    (3, 256, 256, 4, 4, 1),
    (3, 512, 512, 4, 4, 1),
    (3, 128, 128, 3, 2, 1),
    (1, 256, 512, 3, 2, 2),
    (1, 128, 256, 6, 4, 2),
    (1, 1024, 256, 4, 4, 1),
    (3, 64, 64, 2, 2, 1),
)
"""Kernel size, input channels, output channels, height, width, and stride."""


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=("networks", "convolutions"))
    keep_freed_memory()
    if parser.parse_args().command == "networks":
        compare_networks()
    else:
        compare_convolutions()


def compare_networks(rounds: int = 9) -> None:
    """Print training steps per second of a ResNet-18 in three layouts."""
    print(
        f"{'input':<12}{'batch':>6}{'torch':>10}{'channels-last':>15}{'prepared':>10}{'ratio':>8}"
    )
    for height, width, batch in NETWORK_INPUTS:
        images = torch.randn(batch, 3, height, width)
        labels = torch.randint(0, 42, (batch,))
        steps = [
            training_step(layout, images, labels)
            for layout in ("torch", "channels-last", "prepared")
        ]
        speeds = []
        for seconds in time_in_turns(steps, rounds=rounds):
            speeds.append(batch / statistics.median(seconds))
        print(
            f"{f'{height} x {width}':<12}{batch:>6}{speeds[0]:>10.0f}{speeds[1]:>15.0f}"
            f"{speeds[2]:>10.0f}{speeds[2] / speeds[0]:>8.2f}"
        )


def training_step(layout: str, images: Tensor, labels: Tensor) -> Callable[[], None]:
    """Return a function that takes one training step of a new ResNet-18."""
    size = (images.shape[2], images.shape[3])
    network = build_backbone("resnet18", 42, image_size=size, stem="standard")
    sgd = functools.partial(torch.optim.SGD, lr=0.01, momentum=0.9, nesterov=True, fused=True)
    if layout == "prepared":
        prepare_for_device(network, "cpu")
        optimizer = build_optimizer(sgd, network)
    else:
        if layout == "channels-last":
            network.to(memory_format=torch.channels_last)
        optimizer = sgd(network.parameters())

    def step() -> None:
        optimizer.zero_grad()
        functional.cross_entropy(network(images), labels).backward()
        optimizer.step()

    return step


def compare_convolutions(rounds: int = 22) -> None:
    """Print milliseconds of one forward and backward pass, by torch and as matrix products.

    The ratio is 1.00 where the layer stays torch's own.
    """
    print(
        f"{'kernel':<8}{'channels':>12}{'map':>8}{'stride':>8}{'torch':>8}{'ours':>8}{'ratio':>8}"
    )
    for kernel, inputs, outputs, height, width, stride in CONVOLUTIONS:
        original = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        original.to(memory_format=torch.channels_last)
        replaced = nn.Sequential(copy.deepcopy(original))
        replace_small_convs(replaced)
        images = torch.randn(64, inputs, height, width)
        images = images.to(memory_format=torch.channels_last).requires_grad_()
        passes = [forward_and_backward(original, images), forward_and_backward(replaced, images)]
        durations = time_in_turns(passes, rounds=rounds, warm_up=3)
        torch_ms, our_ms = (1000 * statistics.median(seconds) for seconds in durations)
        print(
            f"{kernel:<8}{f'{inputs} > {outputs}':>12}{f'{height} x {width}':>8}{stride:>8}"
            f"{torch_ms:>8.2f}{our_ms:>8.2f}{torch_ms / our_ms:>8.2f}"
        )


def forward_and_backward(layer: nn.Module, images: Tensor) -> Callable[[], None]:
    """Return a function that runs a layer forward and backward."""

    def run() -> None:
        layer(images).sum().backward()
        layer.zero_grad()

    return run


if __name__ == "__main__":
    main()
