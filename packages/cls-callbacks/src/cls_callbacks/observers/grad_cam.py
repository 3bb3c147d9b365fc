"""Which places of an image spoke for the answer that was wrong."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from loguru import logger
from numpy.typing import NDArray
from torch import Tensor, nn

from cls_callbacks.observers.after_evaluation import AfterEvaluation
from cls_data import ClassificationDataModule, EvaluationOutputs
from cls_export.contract.files import write_atomically

_ENOUGH_PLACES = 16
"""Of a small image the last maps may have four, which tell nothing; then an earlier block is asked."""


_NEAR = 4
"""Such a block is near the end if it has at least a fourth of the last one's channels."""


class GradCam(AfterEvaluation):
    """Writes predictions/gradcam_{split}.npz after `validate` and `test`: maps of the surest mistakes.

    The file holds `ids`, str [K], paths of the images relative to the data root, and `maps`, uint8 [K, h, w], from 0
    where nothing spoke for the answer to 255 where most did. A network without feature maps, such as a vision
    transformer, gets no file.

    Args:
        images: K, at most.
    """

    def __init__(self, images: int = 24) -> None:
        self.images = images

    def report(
        self, trainer: Trainer, data: ClassificationDataModule, outputs: EvaluationOutputs
    ) -> None:
        """Explain the surest mistakes."""
        module = trainer.lightning_module
        confidence, answers = outputs.logits.float().softmax(dim=1).max(dim=1)
        wrong = (answers != outputs.labels).nonzero().flatten()
        chosen = wrong[confidence[wrong].argsort(descending=True, stable=True)][: self.images]
        if not len(chosen):
            return
        rows = outputs.index[chosen]
        # Validation runs in inference mode, in which nothing can be derived.
        with torch.inference_mode(False), torch.enable_grad():
            maps = grad_cam(
                module, data.images(outputs.split, rows).to(module.device), answers[chosen]
            )
        if maps is None:
            logger.info("no Grad-CAM: the network has no feature maps of more than one place")
            return
        records = data.records(outputs.split)
        stream = io.BytesIO()
        np.savez_compressed(
            stream, ids=np.array([records[row].id for row in rows.tolist()], np.str_), maps=maps
        )
        path = Path(trainer.default_root_dir) / "predictions" / f"gradcam_{outputs.split}.npz"
        write_atomically(path, stream.getvalue())


def grad_cam(network: nn.Module, images: Tensor, answers: Tensor) -> NDArray[np.uint8] | None:
    """Return the maps of some answers (Selvaraju et al., arXiv:1610.02391): uint8 [B, h, w]; None without feature maps.

    Args:
        network: maps images to logits [B, C]; in evaluation mode.
        images: float32 [B, 3, H, W], on the network's device.
        answers: int64 [B], the classes that the maps are for.
    """
    from captum.attr import (
        LayerGradCam,  # takes 3 s, which no other use of this package is to wait for
    )

    layer = _last_feature_maps(network, images[:1])
    if layer is None:
        return None
    found = LayerGradCam(network, layer).attribute(
        images.detach().clone().requires_grad_(), answers.to(images.device), relu_attributions=True
    )
    maps = found.detach().float().cpu().squeeze(1)
    largest = maps.amax(dim=(1, 2), keepdim=True).clamp_min(1e-12)
    scaled: NDArray[np.uint8] = (maps / largest * 255).round().to(torch.uint8).numpy()
    return scaled


def _last_feature_maps(network: nn.Module, image: Tensor) -> nn.Module | None:
    """Find what last gives maps [1, channels, h, w] of enough places to tell something: a block near the pooling."""
    found: list[tuple[nn.Module, torch.Size]] = []

    def remember(module: nn.Module, inputs: Any, output: Any) -> None:
        if not isinstance(output, Tensor):
            return
        if output.ndim == 3:  # from here on it works on tokens
            found.clear()
        # Fewer channels than places: they come last here, as within ConvNeXt and Swin.
        elif (
            output.ndim == 4
            and output.shape[1] > max(output.shape[2:])
            and output.shape[2:].numel() > 1
        ):
            found.append((module, output.shape))

    hooks = [
        module.register_forward_hook(remember)
        for module in network.modules()
        if module is not network
    ]
    try:
        with torch.no_grad():
            network(image)
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        return None
    last, shape = found[-1]
    fine = [
        module
        for module, its in found
        if its[2:].numel() >= _ENOUGH_PLACES and its[1] * _NEAR >= shape[1]
    ]
    return fine[-1] if fine else last
