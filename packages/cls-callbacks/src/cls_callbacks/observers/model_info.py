"""Measure the size, FLOPs, and latency of the network."""

import json
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from loguru import logger
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from cls_callbacks.trainer_access import get_datamodule, get_run_paths
from cls_data import evaluation_mode
from cls_export.contract.files import write_atomically

_FLOAT32_BYTES = 4
_MAX_FORWARDS = 20
_MAX_SECONDS = 0.15
"""No further forward pass is timed after this; a slow network is timed once."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Size and cost of a network.

    Attributes:
        image: Height and width in pixels.
        trainable: Number of parameters that require a gradient.
        weights_mb: Size of all parameters as float32, in MB (1e6 bytes).
        flops: Floating-point operations of one image's forward pass, as `torch.utils.flop_counter`
            counts them: only convolutions, matrix products, and attention; a multiply-add is two.
        latency_ms: Median time of one image's forward pass, in milliseconds.
        device: Device of that measurement.
        threads: CPU threads of PyTorch during that measurement.
    """

    image: tuple[int, int]
    parameters: int
    trainable: int
    weights_mb: float
    flops: int
    latency_ms: float
    device: str
    threads: int

    def __str__(self) -> str:
        is_all_trainable = self.trainable == self.parameters
        trainable = "all" if is_all_trainable else f"{self.trainable:,}"
        height, width = self.image
        gflops = self.flops / 1e9

        return (
            f"{self.parameters:,} parameters ({trainable} trainable), {self.weights_mb:.1f} MB; "
            f"one {height}x{width} px image takes {gflops:.3g} GFLOPs and {self.latency_ms:.3g} ms "
            f"({self.device}, {self.threads} threads)"
        )


class ModelInfoWriter(Callback):
    """When `fit` starts or resumes, write model_info.json, and log the same in one line.

    The network is measured on its device, in evaluation mode, in the precision of its weights, and
    without torch.compile; other load on the machine increases the latency. Modes, weights, and
    random number generators are unchanged afterwards. Layers that are frozen later count as
    trainable.

    Args:
        network: Name of the submodule that maps float [1, 3, H, W] to logits; an empty name is the
            module itself.

    Raises:
        AttributeError: The module has no such submodule.
    """

    def __init__(self, network: str = "backbone") -> None:
        self.network = network

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the network, and write the file."""
        if not trainer.is_global_zero:
            return

        height, width = get_datamodule(trainer).preprocessing.size
        network = pl_module.get_submodule(self.network)
        info = measure_model(network, (height, width))

        content = json.dumps(asdict(info), indent=2) + "\n"
        write_atomically(get_run_paths(trainer).model_info, content.encode())
        logger.info("model: {}", info)


def measure_model(network: nn.Module, size: tuple[int, int]) -> ModelInfo:
    """Measure a network that has parameters and accepts float [1, 3, H, W], on its device."""
    network = getattr(network, "_orig_mod", network)  # the network that torch.compile wraps
    parameters = list(network.parameters())
    count = sum(parameter.numel() for parameter in parameters)
    trainable = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)

    device = parameters[0].device
    image = torch.zeros(1, 3, *size, device=device, dtype=parameters[0].dtype)
    with _without_side_effects(network, device):
        flops = _count_flops(network, image)
        latency_ms = _time_forward(network, image) * 1000

    is_cuda = device.type == "cuda"
    return ModelInfo(
        image=size,
        parameters=count,
        trainable=trainable,
        weights_mb=count * _FLOAT32_BYTES / 1e6,
        flops=flops,
        latency_ms=round(latency_ms, 3),
        device=torch.cuda.get_device_name(device) if is_cuda else device.type,
        threads=torch.get_num_threads(),
    )


@contextmanager
def _without_side_effects(network: nn.Module, device: torch.device) -> Iterator[None]:
    """Run in evaluation and inference mode, uncompiled, and restore random number generators."""
    cuda_devices = [device] if device.type == "cuda" else []
    with (
        evaluation_mode(network),
        torch.random.fork_rng(cuda_devices),
        torch.inference_mode(),
        torch.compiler.set_stance("force_eager"),
    ):
        yield


def _count_flops(network: nn.Module, image: Tensor) -> int:
    """Count with unfused attention: fused attention kernels would count as 0."""
    is_fastpath_enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)

    try:
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            network(image)
    finally:
        torch.backends.mha.set_fastpath_enabled(is_fastpath_enabled)
    return int(counter.get_total_flops())


def _time_forward(network: nn.Module, image: Tensor) -> float:
    """Return the median seconds of a forward pass, synchronized with the device."""
    device_module = torch.get_device_module(image.device)
    synchronize = device_module.synchronize
    network(image)  # warm-up: the first pass allocates, and selects kernels on a GPU

    seconds: list[float] = []
    while len(seconds) < _MAX_FORWARDS and sum(seconds) < _MAX_SECONDS:
        synchronize()
        started = time.perf_counter()
        network(image)
        synchronize()
        seconds.append(time.perf_counter() - started)

    return statistics.median(seconds)
