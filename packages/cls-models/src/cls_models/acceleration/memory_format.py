"""Memory layout of a network for the device that trains it."""

import torch
from torch import nn

from cls_models.acceleration.precision import Precision
from cls_models.acceleration.small_conv import replace_small_convs


def is_channels_last_faster(device: torch.device | str, precision: Precision = "32-true") -> bool:
    """Return whether convolutions run faster in `torch.channels_last` (NHWC) on a device.

    CPU: 1.4-2.0 times as fast for a ResNet-18 at 48x32 to 64x64 px, together with `SmallConv2d`
    and `patch_channels_last_step` (`benchmarks/cpu_layers.py networks`); 1.12-1.19 times on its own
    from 128 px. CUDA with mixed precision: tensor cores work on NHWC, and cuDNN transposes other
    layouts (NVIDIA, "Convolutional Layers User's Guide"). No gain is known elsewhere.
    """
    device_type = torch.device(device).type
    if device_type == "cuda":
        return precision != "32-true"
    return device_type == "cpu"


def prepare_for_device(
    backbone: nn.Module, device: torch.device | str, precision: Precision = "32-true"
) -> list[str]:
    """Convert a network in place to the memory format and the layers that are fastest on a device.

    Parameters and state_dict keys stay the same. Logits differ by rounding only. Returns a
    description of each change, for the log.
    """
    changes = []
    if is_channels_last_faster(device, precision):
        backbone.to(memory_format=torch.channels_last)
        changes.append("converted weights to channels-last")
    if torch.device(device).type == "cpu":
        count = replace_small_convs(backbone)
        if count:
            changes.append(f"replaced {count} convolutions with SmallConv2d")
    return changes
