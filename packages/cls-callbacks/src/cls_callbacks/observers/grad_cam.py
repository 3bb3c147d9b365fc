"""Write Grad-CAM maps of the most confident mistakes."""

import io
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from loguru import logger
from numpy.typing import NDArray
from torch import Tensor, nn

from cls_callbacks.observers.evaluation_callback import EvaluationCallback
from cls_callbacks.trainer_access import get_run_paths
from cls_data import ClassificationDataModule, EvaluationOutputs
from cls_export.contract.files import write_atomically

_MIN_PIXELS = 16
"""If the last maps have fewer pixels, those of an earlier layer are used."""

_MAX_CHANNEL_RATIO = 4
"""Such a layer needs at least this fraction (1 / 4) of the last layer's channels."""


class GradCamWriter(EvaluationCallback):
    """Write predictions/gradcam_{split}.npz after `validate` and `test`.

    The file holds the maps of the most confident mistakes: `ids`, str [K], are image paths relative
    to the data root; `maps`, uint8 [K, h, w], range from 0 (no influence on the predicted class) to
    255 (the strongest). A network without feature maps, such as a vision transformer, gets no file.

    Args:
        max_images: Largest number of maps, K.
    """

    def __init__(self, max_images: int = 24) -> None:
        self.max_images = max_images

    def on_evaluation_end(
        self, trainer: Trainer, data: ClassificationDataModule, outputs: EvaluationOutputs
    ) -> None:
        """Write the file."""
        module = trainer.lightning_module
        confidence, predictions = outputs.logits.float().softmax(dim=1).max(dim=1)

        mistakes = (predictions != outputs.labels).nonzero().flatten()
        order = confidence[mistakes].argsort(descending=True, stable=True)
        selected = mistakes[order][: self.max_images]
        if not len(selected):
            return

        rows = outputs.index[selected]
        # Lightning evaluates in inference mode, which has no gradients.
        with torch.inference_mode(False), torch.enable_grad():
            images = data.images(outputs.split, rows).to(module.device)
            maps = compute_grad_cam(module, images, predictions[selected])

        if maps is None:
            logger.info("Grad-CAM skipped: the network has no feature maps larger than 1x1")
            return

        records = data.records(outputs.split)
        ids = [records[row].id for row in rows.tolist()]
        content = io.BytesIO()
        np.savez_compressed(content, ids=np.array(ids, np.str_), maps=maps)
        path = get_run_paths(trainer).predictions / f"gradcam_{outputs.split}.npz"
        write_atomically(path, content.getvalue())


def compute_grad_cam(
    network: nn.Module, images: Tensor, classes: Tensor
) -> NDArray[np.uint8] | None:
    """Return Grad-CAM maps (Selvaraju et al., arXiv:1610.02391): uint8 [B, h, w].

    Args:
        network: Maps images to logits [B, C]; in evaluation mode.
        images: float32 [B, 3, H, W], on the network's device.
        classes: int64 [B], the class to explain in each image.

    The result is None for a network without feature maps.
    """
    from captum.attr import LayerGradCam  # importing it takes 3 s

    layer = _select_layer(network, images[:1])
    if layer is None:
        return None

    inputs = images.detach().clone().requires_grad_()
    attributions = LayerGradCam(network, layer).attribute(
        inputs, classes.to(images.device), relu_attributions=True
    )

    maps = attributions.detach().float().cpu().squeeze(1)
    largest = maps.amax(dim=(1, 2), keepdim=True).clamp_min(1e-12)
    scaled: NDArray[np.uint8] = (maps / largest * 255).round().to(torch.uint8).numpy()
    return scaled


def _select_layer(network: nn.Module, image: Tensor) -> nn.Module | None:
    """Return the last layer whose output is feature maps, [1, channels, h, w], of useful size."""
    candidates: list[tuple[nn.Module, torch.Size]] = []

    def record_output(module: nn.Module, inputs: Any, output: Any) -> None:
        if not isinstance(output, Tensor):
            return
        shape = output.shape
        if len(shape) == 3:  # a token sequence: earlier maps are patch embeddings
            candidates.clear()
        elif len(shape) == 4 and _is_feature_map(shape):
            candidates.append((module, shape))

    hooks = []
    for module in network.modules():
        if module is not network:
            hooks.append(module.register_forward_hook(record_output))
    try:
        with torch.no_grad():
            network(image)
    finally:
        for hook in hooks:
            hook.remove()
    if not candidates:
        return None
    last_layer, last_shape = candidates[-1]
    for layer, shape in reversed(candidates):
        has_enough_channels = shape[1] * _MAX_CHANNEL_RATIO >= last_shape[1]
        if shape[2:].numel() >= _MIN_PIXELS and has_enough_channels:
            return layer
    return last_layer


def _is_feature_map(shape: torch.Size) -> bool:
    # Inside ConvNeXt and Swin, channels come last, so the second axis is the height.
    _, channels, height, width = shape
    has_channels_first = channels > max(height, width)
    return has_channels_first and height * width > 1
