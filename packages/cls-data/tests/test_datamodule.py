import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loguru import logger
from torch import Tensor

from cls_data import (
    BroadcastAugmentation,
    ClassificationBatch,
    ClassificationDataModule,
    DataError,
    DataModuleConfig,
    GeometricTransform,
    LightAugmentation,
    MixupCutmix,
    check,
)


def build_data(
    root: Path,
    preprocessing: Any,
    *,
    augmentation: Any = None,
    mixing: MixupCutmix | None = None,
    **settings: Any,
) -> ClassificationDataModule:
    config = DataModuleConfig(root=root, batch_size=8, **settings)
    data = ClassificationDataModule(
        config, preprocessing, augmentation or LightAugmentation(), mixing=mixing
    )
    data.prepare_data()
    data.setup()
    return data


def batches(data: ClassificationDataModule, loader: Any) -> list[ClassificationBatch]:
    return [data.on_after_batch_transfer(batch, 0) for batch in loader]


def images_of(data: ClassificationDataModule, loader: Any) -> Tensor:
    return torch.cat([batch["images"] for batch in batches(data, loader)])


@pytest.fixture
def log_lines() -> Iterator[list[str]]:
    """Collect log messages."""
    lines: list[str] = []
    sink = logger.add(lines.append, format="{level}: {message}")
    yield lines
    logger.remove(sink)


def relabel(root: Path, split: str, row: int, label: str) -> None:
    """Give one row of a split another label."""
    file = root / split / "annotations.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[row]["suffix"] = label
    file.write_text("".join(json.dumps(each) + "\n" for each in rows))


def append(root: Path, split: str, **row: Any) -> None:
    with (root / split / "annotations.jsonl").open("a") as stream:
        stream.write(json.dumps(row) + "\n")


def test_a_training_batch_has_the_documented_shapes_and_dtypes(
    root: Path, preprocessing: Any
) -> None:
    data = build_data(root, preprocessing)
    batch = batches(data, data.train_dataloader())[0]
    assert (batch["images"].shape, batch["images"].dtype) == ((8, 3, 16, 16), torch.float32)
    assert (batch["labels"].shape, batch["labels"].dtype) == ((8,), torch.int64)
    names = [data.records("train")[row].label for row in batch["index"].tolist()]
    assert [data.classes[label] for label in batch["labels"].tolist()] == names


@pytest.mark.parametrize("stored_size", [None, (24, 20), (8, 8)])
def test_an_evaluation_batch_equals_numpy_normalization_bit_for_bit(
    root: Path, preprocessing: Any, stored_size: tuple[int, int] | None
) -> None:
    data = build_data(
        root, preprocessing, stored_size=stored_size, mixing=MixupCutmix(probability=1)
    )
    scale, bias = preprocessing.scale_and_bias()
    images = images_of(data, data.val_dataloader()).numpy()
    for record, row in zip(data.records("valid"), images, strict=True):
        pixels = preprocessing.resize_image(preprocessing.decode(record.path.read_bytes())).astype(
            np.float32
        )
        assert np.array_equal(row.transpose(1, 2, 0), pixels * scale + bias)


@pytest.mark.parametrize("store", [None, "store"])
def test_an_epoch_does_not_depend_on_workers_or_store(
    root: Path, preprocessing: Any, store: str | None
) -> None:
    epochs: list[Any] = []
    for workers in (0, 2):
        data = build_data(
            root,
            preprocessing,
            augmentation=BroadcastAugmentation(),
            mixing=MixupCutmix(),
            num_workers=workers,
            store=store and root / store,
        )
        loader: Any = data.train_dataloader()
        iterator = iter(loader)  # before the epoch is set, as Lightning does on resume
        loader.sampler.set_epoch(5)
        epochs.append(batches(data, iterator))
    for one, other in zip(*epochs, strict=True):
        for name in ("images", "labels", "index", "targets"):
            assert torch.equal(one[name], other[name])


@pytest.mark.parametrize("persistent", [False, True])
def test_an_exception_in_training_ends_the_loader_workers(
    root: Path, preprocessing: Any, persistent: bool
) -> None:
    data = build_data(root, preprocessing, num_workers=1, persistent_workers=persistent)
    iterator = iter(data.train_dataloader())
    next(iterator)
    workers = multiprocessing.active_children()
    assert len(workers) == 1

    data.on_exception(RuntimeError("from the training loop, which still holds the iterator"))
    for worker in workers:
        assert worker.exitcode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_loader_worker_survives_signals_to_its_group_as_soon_as_it_exists(
    root: Path, preprocessing: Any
) -> None:
    def read_children() -> list[int]:
        files = Path("/proc/self/task").glob("*/children")
        return [int(child) for file in files for child in file.read_text().split()]

    def signal_new_worker(before: list[int]) -> None:
        while not (new := set(read_children()) - set(before)):
            pass
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            os.kill(min(new), number)

    data = build_data(root, preprocessing, num_workers=1)
    for _ in range(5):
        sender = threading.Thread(target=signal_new_worker, args=[read_children()])
        sender.start()
        assert len(list(data.train_dataloader())) == 3
        sender.join()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_resumes_in_the_middle_of_an_epoch_and_starts_the_next_one_from_its_beginning(
    root: Path, preprocessing: Any, workers: int
) -> None:
    data = build_data(root, preprocessing, num_workers=workers)
    loader, again = data.train_dataloader(), data.train_dataloader()
    sampler: Any = loader.sampler
    sampler.set_epoch(4)
    whole, half = list(loader), iter(loader)
    next(half)
    assert len(whole) == 3
    state: Any = loader
    resumed: Any = again
    resumed.load_state_dict(state.state_dict())
    iterator = iter(resumed)
    resumed.sampler.set_epoch(4)
    rest = list(iterator)
    assert len(rest) == 2
    for one, other in zip(whole[1:], rest, strict=True):
        assert one["seed"] == other["seed"]
        assert torch.equal(one["images"], other["images"])
    assert len(list(resumed)) == 3
    resumed.load_state_dict({"batches": 2})
    iter(resumed)
    assert resumed.state_dict() == {"batches": 2}, "before any batch is requested"


def test_evaluation_loaders_do_not_augment(root: Path, preprocessing: Any) -> None:
    data = build_data(root, preprocessing)
    for loader in (data.val_dataloader, data.test_dataloader, data.predict_dataloader):
        first, second = (images_of(data, loader()) for _ in range(2))
        assert torch.equal(first, second)


def test_statistics_cover_every_split(root: Path, preprocessing: Any) -> None:
    statistics = build_data(root, preprocessing).statistics
    assert statistics.counts["train"] == {"1": 10, "10": 10, "2": 10}
    assert statistics.missing_classes("test") == ("2",)
    assert statistics.imbalance_ratio == 1
    assert statistics.sizes["train"].height == (20, 22, 24)


def test_the_fingerprint_ignores_order_and_depends_on_every_label_and_byte(
    root: Path, preprocessing: Any
) -> None:
    before = build_data(root, preprocessing).fingerprint
    rows = (root / "train" / "annotations.jsonl").read_text().splitlines()
    (root / "train" / "annotations.jsonl").write_text("\n".join(reversed(rows)))
    assert build_data(root, preprocessing).fingerprint == before
    (root / "train" / "annotations.jsonl").write_text(
        "\n".join([rows[0].replace('"10"', '"2"'), *rows[1:]])
    )
    relabeled = build_data(root, preprocessing).fingerprint
    (root / "train" / "annotations.jsonl").write_text("\n".join(rows))
    with (root / "test" / "0.png").open("ab") as stream:
        stream.write(b"\0")
    assert len({before, relabeled, build_data(root, preprocessing).fingerprint}) == 3


def test_class_weights_are_none_by_default(root: Path, preprocessing: Any) -> None:
    assert build_data(root, preprocessing).class_weights() is None
    weights: Any = build_data(root, preprocessing, class_weights="balanced").class_weights()
    assert torch.equal(weights, torch.ones(3))


def test_effective_number_class_weights_are_between_uniform_and_balanced(
    root: Path, preprocessing: Any
) -> None:
    for row in range(0, 24, 3):
        relabel(root, "train", row, "2")
    weights: dict[float, Any] = {
        beta: build_data(
            root, preprocessing, class_weights="effective_number", effective_number_beta=beta
        ).class_weights()
        for beta in (0.0, 0.9, 0.999999)
    }
    assert torch.allclose(weights[0.0], torch.ones(3))
    balanced: Any = build_data(root, preprocessing, class_weights="balanced").class_weights()
    assert torch.allclose(weights[0.999999], balanced, rtol=1e-3)
    rare = build_data(root, preprocessing).class_to_idx["10"]
    assert 1 < weights[0.9][rare] < weights[0.999999][rare]


@pytest.mark.parametrize("class_weights", ["balanced", "effective_number"])
def test_correcting_an_imbalance_twice_is_warned_about(
    root: Path, preprocessing: Any, log_lines: list[str], class_weights: str
) -> None:
    build_data(root, preprocessing, class_weights=class_weights, sampler="weighted")
    (line,) = [line for line in log_lines if "both correct the same imbalance" in line]
    assert line.startswith(
        f"WARNING: data.sampler=weighted and data.class_weights={class_weights} "
    )


@pytest.mark.parametrize("settings", [{"sampler": "weighted"}, {"class_weights": "balanced"}, {}])
def test_correcting_an_imbalance_once_gives_no_warning(
    root: Path, preprocessing: Any, log_lines: list[str], settings: dict[str, Any]
) -> None:
    build_data(root, preprocessing, **settings)
    assert not any("same imbalance" in line for line in log_lines)


def test_augmentation_that_can_change_a_digit_is_warned_about(
    root: Path, preprocessing: Any, log_lines: list[str]
) -> None:
    build_data(
        root,
        preprocessing,
        augmentation=LightAugmentation(geometry=GeometricTransform(horizontal_flip=0.5)),
    )
    assert any("WARNING: augmentation.geometry.horizontal_flip=0.5" in line for line in log_lines)


def count_sampled_labels(data: ClassificationDataModule, epochs: int) -> Counter[str]:
    loader: Any = data.train_dataloader()
    drawn: Counter[str] = Counter()
    for epoch in range(epochs):
        loader.sampler.set_epoch(epoch)
        drawn.update(data.classes[label] for batch in loader for label in batch["labels"].tolist())
    return drawn


def test_a_weighted_sampler_follows_the_sampling_weights_or_balances_classes(
    root: Path, preprocessing: Any
) -> None:
    for row in range(0, 24, 3):
        relabel(root, "train", row, "2")
    data = build_data(root, preprocessing, sampler="weighted")
    assert data.statistics.counts["train"] == {"1": 10, "10": 2, "2": 18}
    drawn = count_sampled_labels(data, 100)
    assert all(
        drawn[name] / drawn.total() == pytest.approx(1 / 3, abs=0.04) for name in data.classes
    )
    weights = {"10": 2.0, "1": 1.0, "2": 1.0}
    drawn = count_sampled_labels(
        build_data(root, preprocessing, sampler="weighted", sampling_weights=weights), 100
    )
    assert all(
        drawn[name] / drawn.total() == pytest.approx(share / 4, abs=0.04)
        for name, share in weights.items()
    )


def test_invalid_sampling_weights_are_rejected(root: Path, preprocessing: Any) -> None:
    with pytest.raises(DataError, match="Missing or unknown: '10', '3'"):
        build_data(
            root, preprocessing, sampler="weighted", sampling_weights={"1": 1, "2": 1, "3": 1}
        )
    with pytest.raises(ValueError, match="sampling_weights need sampler=weighted"):
        build_data(root, preprocessing, sampling_weights={"1": 1, "2": 1, "10": 1})


@pytest.mark.parametrize("stored_size", [(24, 20), (8, 12), (16, 16)])
def test_training_images_are_stored_at_stored_size_and_resized_for_the_model(
    root: Path, preprocessing: Any, stored_size: tuple[int, int]
) -> None:
    data = build_data(root, preprocessing, stored_size=stored_size)
    assert data.pixels("train").shape == (30, 3, *stored_size)
    assert data.pixels("valid").shape == (9, 3, 16, 16)
    for batch in batches(data, data.train_dataloader()):
        assert batch["images"].shape == (8, 3, 16, 16)
        assert -1.001 <= batch["images"].min() <= batch["images"].max() <= 1.001


def test_mixing_adds_targets_to_training_batches_only(root: Path, preprocessing: Any) -> None:
    data = build_data(root, preprocessing, mixing=MixupCutmix(probability=1))
    for batch in batches(data, data.train_dataloader()):
        assert (batch["targets"].shape, batch["targets"].dtype) == ((8, 3), torch.float32)
        assert torch.allclose(batch["targets"].sum(dim=1), torch.ones(8))
        assert (batch["labels"].shape, batch["labels"].dtype) == ((8,), torch.int64)
    for loader in (data.val_dataloader(), data.test_dataloader(), data.predict_dataloader()):
        assert all("targets" not in batch for batch in batches(data, loader))
    plain = build_data(root, preprocessing)
    assert all("targets" not in batch for batch in batches(plain, plain.train_dataloader()))


def test_the_gate_raises_before_images_are_decoded(root: Path, preprocessing: Any) -> None:
    append(root, "train", image="0.png", suffix="2")
    data = ClassificationDataModule(DataModuleConfig(root=root), preprocessing)
    with pytest.raises(
        DataError, match=r"conflicting_labels \(1\):(.|\n)*train/annotations.jsonl:31"
    ):
        data.prepare_data()
    assert data.splits == ()


def test_gate_warnings_are_logged_once(
    root: Path, preprocessing: Any, log_lines: list[str]
) -> None:
    append(root, "train", image="0.png", suffix="2")
    data = build_data(root, preprocessing, gate={"conflicting_labels": "warn"})
    data.prepare_data()
    assert data.report is not None
    assert data.report.passed
    prefix = "WARNING: data gate: conflicting_labels (1): "
    assert len([line for line in log_lines if line.startswith(prefix)]) == 1


def test_rows_are_read_once_and_facts_about_images_are_not_kept(
    root: Path, preprocessing: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading a million rows takes half a minute, and facts about their images 0.9 GB."""
    data = ClassificationDataModule(DataModuleConfig(root=root), preprocessing)
    data.prepare_data()
    monkeypatch.delattr("cls_data.splits.configured_rows.read_data")
    data.setup()
    assert data.report is not None
    assert data.report.row_counts == {"train": 30, "valid": 9, "test": 6}
    assert len(data.report.inputs.rows) == len(data.report.inputs.files) == 0


def test_no_gate_checks_nothing(root: Path, preprocessing: Any) -> None:
    append(root, "train", image="0.png", suffix="2")
    data = build_data(root, preprocessing, gate=None)
    assert data.report is None
    assert len(data.records("train")) == 31


def test_quarantined_rows_are_left_out(root: Path, preprocessing: Any, tmp_path: Path) -> None:
    append(root, "train", image="0.png", suffix="2")
    check(root, preprocessing).write_quarantine(tmp_path / "quarantine.jsonl")
    data = build_data(root, preprocessing, quarantine=tmp_path / "quarantine.jsonl")
    assert data.report is not None
    assert data.report.passed
    assert "train/0.png" not in [record.id for record in data.records("train")]
    assert len(data.records("train")) == len(data.pixels("train")) == 29


def test_annotations_can_be_in_a_subfolder(root: Path, preprocessing: Any) -> None:
    for split, rows in (("train", range(6, 30)), ("valid", range(6))):
        folder = root / "folds/0" / split
        folder.mkdir(parents=True)
        labels = ["10", "2", "1"] * 10
        lines = [{"image": f"../../../train/{row}.png", "suffix": labels[row]} for row in rows]
        (folder / "annotations.jsonl").write_text(
            "".join(json.dumps(line) + "\n" for line in lines)
        )
    data = build_data(root, preprocessing, annotations="folds/0")
    assert data.splits == ("train", "valid")
    assert [record.id for record in data.records("valid")] == [
        f"train/{row}.png" for row in range(6)
    ]
    assert len(data.records("train")) == 24


def test_a_second_run_maps_the_store_file_of_the_first(
    root: Path, preprocessing: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"store": tmp_path / "store", "stored_size": (24, 20), "gate": None}
    first = build_data(root, preprocessing, **settings)
    files = sorted((tmp_path / "store").iterdir())
    assert len(files) == 3
    with monkeypatch.context() as patch:
        patch.setattr(type(preprocessing), "resize_image", None)  # decoding again would fail
        second = build_data(root, preprocessing, **settings)
    for split in first.splits:
        assert torch.equal(second.pixels(split), first.pixels(split))
    assert sorted((tmp_path / "store").iterdir()) == files
    in_memory = build_data(root, preprocessing, stored_size=(24, 20))
    assert torch.equal(in_memory.pixels("train"), first.pixels("train"))
    assert first.fingerprint == second.fingerprint == in_memory.fingerprint


def test_a_checkpoint_of_other_data_is_rejected(root: Path, preprocessing: Any) -> None:
    before = build_data(root, preprocessing)
    build_data(root, preprocessing).load_state_dict(before.state_dict())
    relabel(root, "train", 0, "2")
    with pytest.raises(DataError, match="have changed since the checkpoint"):
        build_data(root, preprocessing).load_state_dict(before.state_dict())


@pytest.mark.parametrize("store", [None, "store"])
def test_the_pickled_dataset_has_only_pixels_and_labels(
    root: Path, preprocessing: Any, store: str | None
) -> None:
    data = build_data(root, preprocessing, store=store and root / store)
    dataset: Any = data.train_dataloader().dataset
    sent = pickle.dumps(dataset)
    assert b".png" not in sent
    assert b"jsonl" not in sent
    pixels = data.pixels("train").nbytes
    assert len(sent) < (pixels if store is None else 0) + 3000
    plan = next(iter(data.train_dataloader().sampler))
    arrived: Any = pickle.loads(sent)
    for name in ("images", "labels", "index"):
        assert torch.equal(arrived[plan][name], dataset[plan][name])


def test_a_data_root_without_valid_is_rejected(write_split: Any, preprocessing: Any) -> None:
    with pytest.raises(DataError, match="no valid/ folder"):
        build_data(write_split("train", ["1", "2"]), preprocessing)


def test_setup_can_be_repeated_after_a_failure(root: Path, preprocessing: Any) -> None:
    whole = (root / "valid/0.png").read_bytes()
    (root / "valid/0.png").write_bytes(b"")
    data = ClassificationDataModule(DataModuleConfig(root=root), preprocessing)
    with pytest.raises(DataError, match="cannot be decoded"):
        data.setup()
    (root / "valid/0.png").write_bytes(whole)
    data.setup()
    assert data.splits == ("train", "valid", "test")


def test_a_single_class_is_rejected(write_split: Any, preprocessing: Any) -> None:
    write_split("train", ["1", "1"])
    with pytest.raises(DataError, match="one class"):
        build_data(write_split("valid", ["1"]), preprocessing)


def test_test_dataloader_requires_a_test_split(write_split: Any, preprocessing: Any) -> None:
    write_split("train", ["1", "2"])
    data = build_data(write_split("valid", ["1"]), preprocessing)
    assert data.splits == ("train", "valid")
    with pytest.raises(DataError, match="no test/ folder"):
        data.test_dataloader()


def test_persistent_workers_is_ignored_without_workers() -> None:
    assert not DataModuleConfig(root=Path(), persistent_workers=True).persistent_workers
    assert DataModuleConfig(root=Path(), num_workers=2).persistent_workers


def test_augmented_returns_the_stored_images_first(root: Path, preprocessing: Any) -> None:
    data = build_data(root, preprocessing)
    grid = data.augmented([0, 3], draws=4)
    assert grid.shape == (5, 2, 3, 16, 16)
    assert torch.equal(grid[0], data.pixels("train")[[0, 3]])
    assert not torch.equal(grid[1], grid[2])


_TRAINS_ON_TWO_RANKS = """
import json, sys
from pathlib import Path
import torch
from lightning.pytorch import LightningModule, Trainer
from cls_data import ClassificationDataModule, DataModuleConfig, LightAugmentation
from cls_export.contract.preprocessing import Preprocessing

class Notes(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 3)
        self.rows = {"train": [[], []], "valid": [[], []]}
        self.images = []

    def training_step(self, batch, number):
        self.rows["train"][self.current_epoch] += batch["index"].tolist()
        self.images += [image.sum().item() for image in batch["images"]]
        logits = self.layer(batch["images"].mean(dim=(2, 3)))
        return torch.nn.functional.cross_entropy(logits, batch["labels"])

    def validation_step(self, batch, number):
        self.rows["valid"][self.current_epoch] += batch["index"].tolist()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

root = Path(sys.argv[1])
data = ClassificationDataModule(
    DataModuleConfig(
        root=root, batch_size=6, eval_batch_size=4, sampler=sys.argv[2], store=root / "store"
    ),
    Preprocessing(size=(16, 16), mean=(0, 0, 0), std=(1, 1, 1)),
    LightAugmentation(),
)
trainer = Trainer(
    accelerator="cpu", devices=2, strategy="ddp", max_epochs=2, num_sanity_val_steps=0,
    logger=False, enable_checkpointing=False,
    enable_progress_bar=False, enable_model_summary=False,
)
notes = Notes()
trainer.fit(notes, data)
(root / f"rank{trainer.global_rank}.json").write_text(json.dumps([notes.rows, notes.images]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["shuffle", "weighted"])
def test_two_ranks_together_see_every_row_once(root: Path, tmp_path: Path, sampler: str) -> None:
    script = tmp_path / "trains.py"
    script.write_text(_TRAINS_ON_TWO_RANKS)
    subprocess.run([sys.executable, script, root, sampler], check=True, timeout=300)
    ranks = [json.loads((root / f"rank{rank}.json").read_text()) for rank in range(2)]
    for epoch in range(2):
        train, valid = ([rows[split][epoch] for rows, _ in ranks] for split in ("train", "valid"))
        assert [len(rows) for rows in train] == [15, 15]
        assert sorted(valid[0] + valid[1]) == list(range(9))
        if sampler == "shuffle":
            assert sorted(train[0] + train[1]) == list(range(30))
    assert ranks[0][0]["train"][0] != ranks[0][0]["train"][1]
    assert not set(ranks[0][1]) & set(ranks[1][1])  # no two images have the same augmentation


def test_predict_dataloader_resizes_stored_training_images(root: Path, preprocessing: Any) -> None:
    data = build_data(root, preprocessing, stored_size=(24, 24), predict_split="train")
    assert all(
        batch["images"].shape[2:] == (16, 16) for batch in batches(data, data.predict_dataloader())
    )


def test_a_checkpoint_of_other_data_is_rejected_in_setup(root: Path, preprocessing: Any) -> None:
    data = ClassificationDataModule(DataModuleConfig(root=root), preprocessing)
    data.load_state_dict({"fingerprint": "of other data"})
    with pytest.raises(DataError, match="have changed since the checkpoint"):
        data.setup()
    build_data(root, preprocessing).load_state_dict({})


def test_folds_redistribute_train_and_valid_and_keep_test(
    write_split: Any, preprocessing: Any
) -> None:
    write_split("train", ["0", "7"] * 8)
    write_split("valid", ["0", "7"] * 2)
    root = write_split("test", ["0", "7"])
    folds = [build_data(root, preprocessing, gate=None, fold=fold, folds=4) for fold in range(4)]
    valid = [record.id for data in folds for record in data.records("valid")]
    assert sorted(valid) == sorted(
        record.id for record in [*folds[0].records("train"), *folds[0].records("valid")]
    )
    assert len(set(valid)) == 20
    assert len({data.fingerprint for data in folds}) == 4
    assert {tuple(record.id for record in data.records("test")) for data in folds} == {
        ("test/0.png", "test/1.png")
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fold": 0}, "fold and folds must be set together"),
        ({"folds": 5}, "fold and folds must be set together"),
        ({"fold": 5, "folds": 5}, r"fold must be between 0 and 4 for folds=5"),
    ],
)
def test_invalid_fold_settings_are_rejected(
    tmp_path: Path, settings: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        DataModuleConfig(root=tmp_path, **settings)
