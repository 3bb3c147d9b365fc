"""Progressive resizing, and the training split as validation would see it."""

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
    """Trains nothing, and keeps the sizes of the images that it is shown."""

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


def get_datamodule(root: Path, **settings: Any) -> ClassificationDataModule:
    return ClassificationDataModule(
        DataModuleConfig(root=root, batch_size=8, gate=None, **settings),
        Preprocessing(size=(16, 16), mean=(0, 0, 0), std=(1, 1, 1)),
    )


def test_training_images_grow_by_the_share_of_epochs_and_validation_stays(
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
    ).fit(module, datamodule=get_datamodule(root, growing_sizes=STAGES))
    assert module.train_sizes == [(8, 8), (8, 8), (12, 10), (16, 16)]
    assert module.valid_sizes == {(16, 16)}


def test_stages_that_do_not_follow_each_other_are_refused(root: Path) -> None:
    with pytest.raises(
        ValidationError,
        match=r"each stage must last longer than the one before, got until \[0.75, 0.3",
    ):
        get_datamodule(root, growing_sizes=STAGES[::-1])


def test_a_split_can_be_had_as_validation_sees_it(root: Path) -> None:
    data = get_datamodule(root)
    data.setup()
    batches = list(data.unaugmented("train", torch.device("cpu")))
    assert torch.cat([batch["index"] for batch in batches]).tolist() == list(range(30))
    expected = torch.stack([torch.from_numpy(image) for image in _model_input(data)])
    assert torch.allclose(torch.cat([batch["images"] for batch in batches]), expected, atol=1e-5)


def _model_input(data: ClassificationDataModule) -> list[Any]:
    scale, bias = data.preprocessing.scale_and_bias()
    pixels = [
        data.preprocessing.fit(data.preprocessing.decode(row.path.read_bytes()))
        for row in data.records("train")
    ]
    return [(image * scale + bias).transpose(2, 0, 1).astype("float32") for image in pixels]


def test_training_rows_are_counted_by_class(root: Path) -> None:
    data = get_datamodule(root)
    data.setup()
    assert data.class_counts().tolist() == [10, 10, 10]
