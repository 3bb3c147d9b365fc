from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loguru import logger

from cls_data import ClassificationBatch, ClassificationDataModule, DataError, DataModuleConfig, LightAugmentation


def module(root: Path, preprocessing: Any, **settings: Any) -> ClassificationDataModule:
    data = ClassificationDataModule(
        DataModuleConfig(root=root, batch_size=8, **settings), preprocessing, LightAugmentation()
    )
    data.prepare_data()
    data.setup()
    return data


def batches(data: ClassificationDataModule, loader: Any) -> list[ClassificationBatch]:
    return [data.on_after_batch_transfer(batch, 0) for batch in loader]


def test_a_training_batch_has_the_shapes_and_types_of_the_contract(root: Path, preprocessing: Any) -> None:
    data = module(root, preprocessing)
    batch = batches(data, data.train_dataloader())[0]
    assert (batch["images"].shape, batch["images"].dtype) == ((8, 3, 16, 16), torch.float32)
    assert (batch["labels"].shape, batch["labels"].dtype) == ((8,), torch.int64)
    names = [data.records("train")[row].label for row in batch["index"].tolist()]
    assert [data.classes[label] for label in batch["labels"].tolist()] == names


def test_an_evaluation_batch_is_bit_for_bit_what_numpy_normalises(root: Path, preprocessing: Any) -> None:
    data = module(root, preprocessing)
    scale, bias = preprocessing.scale_and_bias()
    images = torch.cat([batch["images"] for batch in batches(data, data.val_dataloader())]).numpy()
    for record, row in zip(data.records("valid"), images, strict=True):
        pixels = preprocessing.fit(preprocessing.decode(record.path.read_bytes())).astype(np.float32)
        assert np.array_equal(row.transpose(1, 2, 0), pixels * scale + bias)


def test_an_epoch_is_the_same_in_a_new_process_and_with_workers(root: Path, preprocessing: Any) -> None:
    epochs = []
    for workers in (0, 2):
        data = module(root, preprocessing, num_workers=workers)
        loader: Any = data.train_dataloader()
        loader.sampler.set_epoch(5)
        epochs.append(torch.cat([batch["images"] for batch in batches(data, loader)]))
    assert torch.equal(*epochs)


def test_valid_and_test_are_never_augmented(root: Path, preprocessing: Any) -> None:
    data = module(root, preprocessing)
    for loader in (data.val_dataloader, data.test_dataloader, data.predict_dataloader):
        first, second = (torch.cat([batch["images"] for batch in batches(data, loader())]) for _ in range(2))
        assert torch.equal(first, second)


def test_statistics_count_every_split(root: Path, preprocessing: Any) -> None:
    statistics = module(root, preprocessing).statistics
    assert statistics.counts["train"] == {"1": 10, "10": 10, "2": 10}
    assert statistics.missing("test") == ("2",)
    assert statistics.imbalance_ratio == 1
    assert statistics.sizes["train"].height == (20, 22, 24)


def test_the_fingerprint_ignores_order_and_sees_every_label_and_byte(root: Path, preprocessing: Any) -> None:
    before = module(root, preprocessing).fingerprint
    rows = (root / "train" / "annotations.jsonl").read_text().splitlines()
    (root / "train" / "annotations.jsonl").write_text("\n".join(reversed(rows)))
    assert module(root, preprocessing).fingerprint == before
    (root / "train" / "annotations.jsonl").write_text("\n".join([rows[0].replace('"10"', '"2"'), *rows[1:]]))
    relabelled = module(root, preprocessing).fingerprint
    (root / "train" / "annotations.jsonl").write_text("\n".join(rows))
    with (root / "test" / "0.png").open("ab") as stream:
        stream.write(b"\0")
    assert len({before, relabelled, module(root, preprocessing).fingerprint}) == 3


def test_class_weights_come_only_when_asked_for(root: Path, preprocessing: Any) -> None:
    assert module(root, preprocessing).class_weights() is None
    weights = module(root, preprocessing, class_weights="balanced").class_weights()
    assert torch.equal(weights, torch.ones(3))


def test_correcting_an_imbalance_twice_is_said(root: Path, preprocessing: Any) -> None:
    lines: list[str] = []
    sink = logger.add(lines.append, format="{message}")
    module(root, preprocessing, class_weights="balanced", sampler="weighted")
    logger.remove(sink)
    assert any("both correct the same imbalance" in line for line in lines)


def test_a_data_root_without_valid_is_refused(write_split: Any, preprocessing: Any) -> None:
    with pytest.raises(DataError, match="no valid/ folder"):
        module(write_split("train", ["1", "2"]), preprocessing)


def test_setup_after_a_failed_one_starts_afresh(root: Path, preprocessing: Any) -> None:
    whole = (root / "valid/0.png").read_bytes()
    (root / "valid/0.png").write_bytes(b"")
    data = ClassificationDataModule(DataModuleConfig(root=root), preprocessing)
    with pytest.raises(DataError, match="cannot be decoded"):
        data.setup()
    (root / "valid/0.png").write_bytes(whole)
    data.setup()
    assert data.splits == ("train", "valid", "test")


def test_a_single_class_is_refused(write_split: Any, preprocessing: Any) -> None:
    write_split("train", ["1", "1"])
    with pytest.raises(DataError, match="one class"):
        module(write_split("valid", ["1"]), preprocessing)


def test_testing_without_a_test_split_is_refused(write_split: Any, preprocessing: Any) -> None:
    write_split("train", ["1", "2"])
    data = module(write_split("valid", ["1"]), preprocessing)
    assert data.splits == ("train", "valid")
    with pytest.raises(DataError, match="no test/ folder"):
        data.test_dataloader()


def test_workers_are_not_kept_where_there_are_none() -> None:
    assert not DataModuleConfig(root=Path(), persistent_workers=True).persistent_workers
    assert DataModuleConfig(root=Path(), num_workers=2).persistent_workers


def test_a_preview_shows_the_stored_images_first(root: Path, preprocessing: Any) -> None:
    data = module(root, preprocessing)
    grid = data.augmented([0, 3], draws=4)
    assert grid.shape == (5, 2, 3, 16, 16)
    assert torch.equal(grid[0], data.pixels("train")[[0, 3]])
    assert not torch.equal(grid[1], grid[2])
