from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cls_callbacks import GradCamWriter
from cls_callbacks.observers.grad_cam import compute_grad_cam


class Brightest(nn.Module):
    """Sum the brightness of the left and of the right half, as the logits of two classes."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Conv2d(3, 64, 1)
        nn.init.constant_(self.maps.weight, 1)
        nn.init.zeros_(self.maps.bias)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.maps(images).mean(dim=1)
        width = maps.shape[2] // 2
        return torch.stack(
            [maps[:, :, :width].sum(dim=(1, 2)), maps[:, :, width:].sum(dim=(1, 2))], dim=1
        )


def test_map_is_largest_where_the_logit_comes_from() -> None:
    images = torch.zeros(2, 3, 8, 8)
    images[0, :, 1, 1], images[1, :, 6, 6] = 1, 1
    maps = compute_grad_cam(Brightest().eval(), images, torch.tensor([0, 1]))
    assert maps is not None
    assert maps.dtype == np.uint8
    assert maps.shape == (2, 8, 8)
    assert np.unravel_index(maps[0].argmax(), (8, 8)) == (1, 1)
    assert np.unravel_index(maps[1].argmax(), (8, 8)) == (6, 6)
    assert maps.max() == 255


def test_network_without_feature_maps_has_no_map() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    assert compute_grad_cam(network, torch.rand(2, 3, 4, 4), torch.tensor([0, 1])) is None


def test_evaluation_writes_maps_of_the_most_confident_mistakes(
    module: Any, data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    module.net = nn.Sequential(
        nn.Conv2d(3, 32, 3, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 3),
    )
    module.forward = module.net.forward
    trainer = make_trainer(GradCamWriter(max_images=5), max_epochs=1)
    trainer.fit(module, datamodule=data)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    assert not (tmp_path / "run/predictions").exists()
    trainer.validate(module, datamodule=data, verbose=False)
    wrong = module.outputs.logits.argmax(dim=1) != module.outputs.labels
    with np.load(tmp_path / "run/predictions/gradcam_valid.npz", allow_pickle=False) as stored:
        ids, maps = stored["ids"], stored["maps"]
    assert len(ids) == min(5, int(wrong.sum())) == len(maps)
    confidence = module.outputs.logits.softmax(dim=1).amax(dim=1)
    most_confident = int(torch.where(wrong, confidence, 0).argmax())
    assert ids[0] == data.records("valid")[int(module.outputs.index[most_confident])].id
    assert maps.dtype == np.uint8
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())
