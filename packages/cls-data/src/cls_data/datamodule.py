"""The Lightning data module."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from lightning.pytorch import LightningDataModule
from loguru import logger
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from cls_data.annotations.reading import SPLITS, Record, Split
from cls_data.augmentation.mixup import MixupCutmix
from cls_data.augmentation.pipelines import Augmentation
from cls_data.config import DataModuleConfig
from cls_data.errors import DataError
from cls_data.gate import CheckReport, check
from cls_data.loading.batches import ClassificationBatch, StoredBatch
from cls_data.loading.block_sampler import build_training_sampler
from cls_data.loading.dataloaders import (
    BatchDataLoader,
    BatchDataset,
    TrainingDataLoader,
    build_dataloader,
)
from cls_data.loading.decoded_dataset import DecodedDataset, DecodedSplit
from cls_data.loading.device_chunks import ChunkPreparation, keep_on_device
from cls_data.loading.device_transform import DeviceTransform
from cls_data.loading.samplers import BatchPlan, EvaluationSampler
from cls_data.shards.rows import ShardRows
from cls_data.splits.configured_rows import check_split_folders, load_quarantine
from cls_data.splits.folder_split import write_split_record
from cls_data.statistics.dataset import DatasetStatistics
from cls_export.contract.preprocessing import Preprocessing


class ClassificationDataModule(LightningDataModule):
    """Data module that decodes every image once, in `setup`, and augments batches on the device.

    Args:
        config: What to read and how to batch it.
        preprocessing: Decodes, resizes, and normalizes images, as the deployed runtime does.
        augmentation: Applied to training batches only; None for no augmentation.
        mixing: Mixes augmented training images with each other; None for no mixing.
        skip_gate: Skip the data gate, for example because the training run passed it before.
        prefetch: Prepare training batches ahead on a GPU, in chunks.
        progress: Show a progress bar while images are decoded.
    """

    def __init__(
        self,
        config: DataModuleConfig,
        preprocessing: Preprocessing,
        augmentation: Augmentation | None = None,
        *,
        mixing: MixupCutmix | None = None,
        skip_gate: bool = False,
        prefetch: bool = True,
        progress: bool = False,
    ) -> None:
        super().__init__()
        self.config = config
        self.preprocessing = preprocessing
        self.report: CheckReport | None = None
        """Report of the data gate; None before `prepare_data`, or if the gate was skipped."""
        self._checked_records: dict[Split, list[Record]] | None = None
        self._should_check = config.gate is not None and not skip_gate
        self._should_prefetch = prefetch
        self._progress = progress
        self._dataset = DecodedDataset(config)
        self._transform = DeviceTransform(preprocessing, augmentation, mixing)
        self._loaders: list[BatchDataLoader] = []
        self._training_loader: TrainingDataLoader | None = None
        self._resume_batch = 0
        self._expected_fingerprint: str | None = None

    def prepare_data(self) -> None:
        """Render the synthetic dataset if it does not exist, and run the data gate once.

        Raises:
            DataError: A rule whose policy is `error` has findings.
        """
        if self.config.synthetic is not None:
            self.config.synthetic.write(self.config.root)
        if not self._should_check or self.config.shards is not None:
            return  # `cls-data shard` ran the gate; `setup` compares its fingerprint

        check_split_folders(self.config)
        report = check(
            self.config.root,
            self.preprocessing,
            self.config.gate,
            annotations=self.config.annotations,
            quarantine=load_quarantine(self.config),
            layout=self.config.layout,
            split=self.config.split,
            workers=self.config.num_decode_workers,
            progress=self._progress,
        )
        report.raise_for_errors()

        self._should_check = False
        if not report.inputs.bad_rows:
            self._checked_records = report.records()
        self.report = report.without_inputs()
        for note in self.report.notes:
            logger.info("data: {}", note)
        for line in self.report.summary("warn"):
            logger.warning("data gate: {}", line)

    def setup(self, stage: str | None = None) -> None:
        """Read and decode all splits, regardless of the stage; a second call does nothing.

        Raises:
            DataError: Rows, labels, or images are invalid. The message lists them by file and line.
        """
        if self._dataset.splits:
            return

        self._dataset = DecodedDataset.load(
            self.config,
            self.preprocessing,
            checked=self._checked_records,
            progress=self._progress,
        )
        self._checked_records = None
        self._check_fingerprint()

        if self.config.sampler == "weighted" and self.config.class_weights is not None:
            logger.warning(
                "data.sampler=weighted and data.class_weights={} both correct the same imbalance, "
                "so rare classes weigh too much. Remove one of them.",
                self.config.class_weights,
            )
        for line in self._transform.label_warnings(self.classes):
            logger.warning("{}", line)

    @property
    def decoded(self) -> DecodedDataset:
        """The decoded splits; empty before `setup`. A pickled copy maps store files again."""
        return self._dataset

    def use_decoded(self, dataset: DecodedDataset) -> None:
        """Use splits that another process of this machine decoded, in place of `setup`."""
        self._should_check = False
        self._dataset = dataset
        self._check_fingerprint()

    def check_ranks(self, world_size: int) -> None:
        """Check that this many devices can share the batches of training and validation.

        Raises:
            DataError: The batch size is not a multiple of their number, or there are fewer images.
        """
        self.config.rank_batch_size(world_size)
        for split in ("train", "valid"):
            rows = len(self.records(split))
            if rows < world_size:
                raise DataError(
                    f"{self.config.root}: {split} has {rows} image(s), and {world_size} devices "
                    f"need one each; set trainer.devices={rows} or less"
                )

    def write_split_record(self, path: Path) -> None:
        """Write which image of the class folders is in which split, for `data.split.record`.

        Writes nothing for annotation files, whose folders are the record.
        """
        if self.config.layout != "folder":
            return
        splits: dict[Split, Sequence[Record]] = {}
        for name in SPLITS:
            if name in self._dataset.splits:
                splits[name] = self._dataset[name].records
        write_split_record(path, splits)

    def state_dict(self) -> dict[str, Any]:
        """Return the data fingerprint and the position in the epoch, for a checkpoint."""
        batches = 0
        if self._training_loader is not None and self.trainer is not None:
            is_mid_epoch = not self.trainer.is_last_batch
            if is_mid_epoch:
                batches = self._training_loader.batches_yielded
        return {
            "fingerprint": self.fingerprint,
            "batches": batches,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume after the batches of a checkpoint.

        Raises:
            DataError: Rows or images have changed since the checkpoint was saved. Raised by `setup`
                if the data is not decoded yet.
        """
        self._expected_fingerprint = state_dict.get("fingerprint")

        is_fitting = self.trainer is None or self.trainer.state.fn == "fit"
        if is_fitting:
            self._resume_batch = state_dict.get("batches", 0)

        if self._dataset.splits:
            self._check_fingerprint()

    def _check_fingerprint(self) -> None:
        if self._expected_fingerprint not in (None, self.fingerprint):
            raise DataError(
                f"{self.config.root}: rows or images have changed since the checkpoint was saved"
            )

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the existing splits; empty before `setup`."""
        return tuple(self._dataset.splits)

    @property
    def class_to_idx(self) -> dict[str, int]:
        """Class names to indices, from the training split; empty before `setup`."""
        return self._dataset.class_to_idx

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in index order."""
        return self._dataset.classes

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all rows and image bytes, independent of their order."""
        return self._dataset.fingerprint()

    @property
    def statistics(self) -> DatasetStatistics:
        """Class counts and image sizes of every split."""
        return self._dataset.statistics()

    def records(self, split: str) -> Sequence[Record]:
        """Return the rows of a split."""
        return self._dataset[split].records

    def sizes(self, split: str) -> NDArray[np.int64]:
        """Return width and height of the image files in pixels, in row order: int64 [N, 2]."""
        return self._dataset[split].store.sizes

    def pixels(self, split: str) -> Tensor:
        """Return the stored images, in row order: uint8 [N, 3, H, W]."""
        return self._dataset[split].store.pixels

    def images(self, split: str, rows: Tensor) -> Tensor:
        """Return model input for some rows, as in evaluation: float32 [B, 3, H, W], on the CPU."""
        pixels = self.pixels(split)[rows]
        return self._transform.transform_images(pixels)

    def augmented(self, rows: Sequence[int], draws: int) -> Tensor:
        """Return training images and random augmentations: uint8 [draws + 1, len(rows), 3, H, W].

        The first slice has the stored images.
        """
        train = self._dataset["train"]
        index = torch.tensor(rows)
        images = train.store.rows.gather(index)
        return self._transform.augment_repeatedly(
            images,
            self.config.seed,
            draws,
        )

    def class_counts(self) -> Tensor:
        """Return the number of training rows of each class: int64 [C]."""
        return self._dataset.class_counts()

    def class_weights(self) -> Tensor | None:
        """Return the loss weights that the configuration requests: float32 [C], or None."""
        return self._dataset.class_weights()

    def train_dataloader(self) -> DataLoader[StoredBatch]:
        """Return the loader of shuffled or weighted batches, to be augmented on the device."""
        train = self._dataset["train"]
        sampler = build_training_sampler(
            train.store.rows,
            len(train.records),
            self.config,
            self._dataset.sampling_weights(),
            **self._ranks(),
        )
        loader = self._build_loader(train, sampler)
        assert isinstance(loader, TrainingDataLoader)

        # Lightning does not restore a loader that was created before its loops were restored, for
        # example by a schedule that needs the number of steps (2.6.6).
        loader.load_state_dict({"batches": self._resume_batch})

        device = self._device()
        if device.type == "cuda" and self._should_prefetch and self.config.num_workers == 0:
            rows = keep_on_device(train.store.rows, device)
            preparation = ChunkPreparation(
                BatchDataset(rows, train.labels, pinned=True),
                self._transform,
                device,
                self._training_size,
                len(self.classes),
            )
            loader.enable_prefetch(preparation.prefetch)

        self._training_loader = loader
        self._resume_batch = 0
        return loader

    def on_exception(self, exception: BaseException) -> None:
        """End what `teardown` ends, which Lightning calls only after success (2.6.6)."""
        self.teardown()

    def teardown(self, stage: str | None = None) -> None:
        """End the workers of loaders, and the threads that fetch blocks of shards."""
        for loader in self._loaders:
            loader.end_workers()
        self._loaders.clear()
        if "train" in self._dataset.splits:
            rows = self._dataset["train"].store.rows
            if isinstance(rows, ShardRows):
                rows.cache.close()

    def val_dataloader(self) -> DataLoader[StoredBatch]:
        """Return the loader of the validation split, in row order."""
        return self._evaluation_loader("valid")

    def test_dataloader(self) -> DataLoader[StoredBatch]:
        """Return the loader of the test split, in row order."""
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> DataLoader[StoredBatch]:
        """Return the loader of the configured `predict_split`, in row order, not augmented."""
        return self._evaluation_loader(self.config.predict_split)

    def unaugmented(self, split: str, device: torch.device) -> Iterator[ClassificationBatch]:
        """Yield all rows of a split in order, as in evaluation, on a device and on each rank."""
        for batch in self._ordered_loader(split):
            moved = move_data_to_device(batch, device)
            yield self._prepare_batch(moved)

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Move a batch to the device, unless it was prefetched."""
        if batch["images"].device == device:
            return batch
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def on_after_batch_transfer(
        self, batch: StoredBatch | ClassificationBatch, dataloader_idx: int
    ) -> ClassificationBatch:
        """Turn a stored batch into model input on its device, unless it was prefetched."""
        is_prefetched = batch["images"].dtype != torch.uint8
        if is_prefetched:
            return cast("ClassificationBatch", batch)
        return self._prepare_batch(cast("StoredBatch", batch))

    def _prepare_batch(self, batch: StoredBatch) -> ClassificationBatch:
        if "seed" not in batch:
            return self._transform.transform_evaluation_batch(batch)
        size = self._training_size()
        return self._transform.transform_training_batch(batch, size, len(self.classes))

    def _training_size(self) -> tuple[int, int]:
        """Return height and width of training images in the current epoch."""
        if self.trainer is None:
            return self.preprocessing.size
        num_epochs = max(1, self.trainer.max_epochs or 1)
        progress = self.trainer.current_epoch / num_epochs
        size = self.config.training_size(progress)
        return self.preprocessing.size if size is None else size

    def _evaluation_loader(self, split: str) -> DataLoader[StoredBatch]:
        return self._ordered_loader(split, **self._ranks())

    def _ordered_loader(
        self, split: str, *, rank: int = 0, world_size: int = 1
    ) -> DataLoader[StoredBatch]:
        decoded = self._dataset[split]
        sampler = EvaluationSampler(
            len(decoded.records),
            self.config.eval_batch_size,
            rank=rank,
            world_size=world_size,
        )
        return self._build_loader(decoded, sampler)

    def _build_loader(self, split: DecodedSplit, sampler: Sampler[BatchPlan]) -> BatchDataLoader:
        device = self._device().type
        loader = build_dataloader(
            BatchDataset(split.store.rows, split.labels, pinned=device == "cuda"),
            sampler,
            # A forked worker cannot use Metal.
            num_workers=0 if device == "mps" else self.config.num_workers,
            persistent_workers=self.config.persistent_workers,
        )
        self._loaders.append(loader)
        return loader

    def _device(self) -> torch.device:
        if self.trainer is None:
            return torch.device("cpu")
        return self.trainer.strategy.root_device

    def _ranks(self) -> Mapping[str, int]:
        """Return this process's rank and the number of processes that share the data."""
        if self.trainer is None:
            return {"rank": 0, "world_size": 1}
        return {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}
