"""Progressive resizing, and training images without augmentation."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from pydantic import ValidationError

from cls_data import ClassificationDataModule, DataModuleConfig
from cls_export.contract.preprocessing import Preprocessing

STAGES: list[dict[str, Any]] = [{"until": 0.3, "size": [8, 8]}, {"until": 0.75, "size": [12, 10]}]


class Sizes(LightningModule):
    """Record the sizes of images."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.train_sizes: list[tuple[int, ...]] = []
        self.valid_sizes: set[tuple[int, ...]] = set()

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        if batch_idx == 0:
            self.train_sizes.append(tuple(batch["images"].shape[2:]))
        return self.weight * 0

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.valid_sizes.add(tuple(batch["images"].shape[2:]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def build_data(root: Path, **settings: Any) -> ClassificationDataModule:
    return ClassificationDataModule(
        DataModuleConfig(root=root, batch_size=8, gate=None, **settings),
        Preprocessing(size=(16, 16), mean=(0, 0, 0), std=(1, 1, 1)),
    )


def test_training_images_grow_with_the_epochs_and_validation_images_do_not(
    root: Path, tmp_path: Path
) -> None:
    module = Sizes()
    Trainer(
        accelerator="cpu",
        max_epochs=4,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=tmp_path,
    ).fit(module, datamodule=build_data(root, growing_sizes=STAGES))
    assert module.train_sizes == [(8, 8), (8, 8), (12, 10), (16, 16)]
    assert module.valid_sizes == {(16, 16)}


def test_growing_sizes_must_have_increasing_ends(root: Path) -> None:
    with pytest.raises(
        ValidationError, match=r"expected `until` to increase from stage to stage, got \[0.75, 0.3"
    ):
        build_data(root, growing_sizes=STAGES[::-1])


def test_unaugmented_yields_a_split_as_in_evaluation(root: Path) -> None:
    data = build_data(root)
    data.setup()
    batches = list(data.unaugmented("train", torch.device("cpu")))
    assert torch.cat([batch["index"] for batch in batches]).tolist() == list(range(30))
    expected = torch.stack([torch.from_numpy(image) for image in _model_input(data)])
    assert torch.allclose(torch.cat([batch["images"] for batch in batches]), expected, atol=1e-5)


def _model_input(data: ClassificationDataModule) -> list[Any]:
    scale, bias = data.preprocessing.scale_and_bias()
    pixels = [
        data.preprocessing.resize_image(data.preprocessing.decode(row.path.read_bytes()))
        for row in data.records("train")
    ]
    return [(image * scale + bias).transpose(2, 0, 1).astype("float32") for image in pixels]


def test_class_counts_counts_training_rows(root: Path) -> None:
    data = build_data(root)
    data.setup()
    assert data.class_counts().tolist() == [10, 10, 10]
