"""Check that batch norms can train with the configured batch size."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from cls_data import evaluation_mode
from cls_models.acceleration.errors import HardwareError


def check_batch_size_for_batch_norm(
    module: nn.Module, rows: int, batch_size: int, image_size: tuple[int, int]
) -> None:
    """Check that no batch norm trains on a single value per channel, which has no variance.

    Training drops an incomplete last batch unless it is the only one, so a batch of one image
    occurs only with `batch_size` 1 or a split of one row. It fails where the feature map is 1x1.

    Args:
        module: Maps float32 [B, 3, H, W] to logits. Batch norms that stay in evaluation mode
            during training are ignored. The module is not changed.
        rows: Number of rows of the training split.
        batch_size: The configured batch size.
        image_size: H and W.

    Raises:
        HardwareError: A layer would fail; the message names the first one.
    """
    if min(rows, batch_size) > 1:
        return
    failing = _find_layers_with_one_value(module, image_size)
    if failing:
        raise HardwareError(
            f"batch_size {batch_size} with {rows} training rows gives batches of one image: the "
            f"batch norm {failing[0]} would get one value per channel at "
            f"{image_size[0]}x{image_size[1]} px and cannot normalize it. Use a batch_size and a "
            "training split of 2 or more, larger images, or frozen batch norms"
        )


def _find_layers_with_one_value(module: nn.Module, image_size: tuple[int, int]) -> list[str]:
    device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
    names: dict[nn.Module, str] = {}
    failing: list[str] = []
    handles = []

    def check_input(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        features = inputs[0]
        if features.numel() == features.shape[1]:
            failing.append(names[layer])

    with evaluation_mode(module):
        module.train()  # modules with frozen batch norms keep these in evaluation mode
        for name, layer in module.named_modules():
            if isinstance(layer, _BatchNorm) and layer.training:
                names[layer] = name
                handles.append(layer.register_forward_pre_hook(check_input))

        module.eval()  # the forward pass must not update running statistics
        try:
            with torch.no_grad():
                module(torch.zeros(1, 3, *image_size, device=device))
        finally:
            for handle in handles:
                handle.remove()
    return failing
