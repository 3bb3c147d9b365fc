"""How large the network is, and what one image costs it."""

import json
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from loguru import logger
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from cls_callbacks.datamodule_access import get_datamodule
from cls_export.contract.files import write_atomically

_BYTES_OF_FLOAT32 = 4
_MOST_FORWARDS = 20
_SECONDS = 0.15
"""After so long no further forward is timed; a slow network is timed once."""


@dataclass(frozen=True, slots=True)
class ModelFigures:
    """Size and cost of a network.

    Attributes:
        image: height and width of the image, in pixels.
        parameters: all of them.
        trainable: those that require a gradient.
        weights_mb: what all parameters take as float32, in megabytes of 10^6 bytes.
        flops: floating-point operations of one forward of one image, as `torch.utils.flop_counter` counts them: those
            of convolutions, matrix products and attention alone, a multiply-add as two.
        latency_ms: median time of one forward of one image, in milliseconds.
        device: on which that was measured.
        threads: of torch on the CPU, at that time.
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
        share = "all" if self.trainable == self.parameters else f"{self.trainable:,}"
        return (
            f"{self.parameters:,} parameters ({share} trainable), {self.weights_mb:.1f} MB; an image of "
            f"{self.image[0]} x {self.image[1]} px takes {self.flops / 1e9:.3g} GFLOPs and {self.latency_ms:.3g} ms "
            f"({self.device}, {self.threads} threads)"
        )


class ModelInfo(Callback):
    """Writes model_info.json when `fit` starts, anew where a run goes on, and logs the same in one line.

    Measured in evaluation mode, in the weights' own precision and without torch.compile, where the module lies; what
    else keeps the machine busy shows in the latency. The network is left as it was, and so is what it would draw next.
    Parameters are counted as `fit` finds them: a transfer that freezes later does not show.

    Args:
        network: name of the submodule that maps float [1, 3, H, W] to logits; an empty one means the module itself.

    Raises:
        AttributeError: at the start, if the module has no submodule of that name.
    """

    def __init__(self, network: str = "backbone") -> None:
        self.network = network

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure."""
        if not trainer.is_global_zero:
            return
        height, width = get_datamodule(trainer).preprocessing.size
        figures = measure(pl_module.get_submodule(self.network), (height, width))
        content = json.dumps(asdict(figures), indent=2) + "\n"
        write_atomically(Path(trainer.default_root_dir) / "model_info.json", content.encode())
        logger.info("model: {}", figures)


def measure(network: nn.Module, size: tuple[int, int]) -> ModelFigures:
    """Measure a network that has parameters and maps float [1, 3, H, W] to anything, where it lies."""
    network = getattr(network, "_orig_mod", network)  # where torch.compile keeps what it wraps
    parameters = list(network.parameters())
    count = sum(parameter.numel() for parameter in parameters)
    example = torch.zeros(1, 3, *size, device=parameters[0].device, dtype=parameters[0].dtype)
    with _as_evaluated(network, example.device):
        flops = _flops(network, example)
        latency = _seconds(network, example) * 1000
    return ModelFigures(
        image=size,
        parameters=count,
        trainable=sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        weights_mb=count * _BYTES_OF_FLOAT32 / 1e6,
        flops=flops,
        latency_ms=round(latency, 3),
        device=torch.cuda.get_device_name(example.device)
        if example.device.type == "cuda"
        else example.device.type,
        threads=torch.get_num_threads(),
    )


@contextmanager
def _as_evaluated(network: nn.Module, device: torch.device) -> Iterator[None]:
    """Bring a network into evaluation mode, and each part back into its own; draws within the block never were."""
    modes = [(part, part.training) for part in network.modules()]
    drawn_from = [device] if device.type == "cuda" else []
    try:
        with (
            torch.random.fork_rng(drawn_from),
            torch.inference_mode(),
            torch.compiler.set_stance("force_eager"),
        ):
            network.eval()
            yield
    finally:
        for part, training in modes:
            part.training = training


def _flops(network: nn.Module, example: Tensor) -> int:
    """Count with attention written out: its fused kernels, among them those of evaluation alone, would count as 0."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            network(example)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return int(counter.get_total_flops())


def _seconds(network: nn.Module, example: Tensor) -> float:
    """Return the median time of a forward, the device waited for each time."""
    wait = torch.get_device_module(example.device).synchronize
    network(example)  # the first one allocates, and on a GPU chooses its kernels
    laps: list[float] = []
    while len(laps) < _MOST_FORWARDS and sum(laps) < _SECONDS:
        wait()
        started = time.perf_counter()
        network(example)
        wait()
        laps.append(time.perf_counter() - started)
    return statistics.median(laps)
