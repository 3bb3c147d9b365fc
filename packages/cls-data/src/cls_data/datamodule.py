"""The Lightning data module: annotations, stores, loaders, and augmentation on the device."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from lightning.pytorch import LightningDataModule
from loguru import logger
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from cls_data.annotations.classes import (
    balancing_weights,
    class_to_idx,
    effective_number_weights,
    label_indices,
    weights_of,
)
from cls_data.annotations.fingerprint import fingerprint
from cls_data.annotations.quarantine import Quarantine
from cls_data.annotations.reading import SPLITS, Record, Split, read_split
from cls_data.augmentation import Augmentation, MixupCutmix
from cls_data.config import DataModuleConfig
from cls_data.errors import DataError
from cls_data.gate import CheckReport, check
from cls_data.images.resize import resize
from cls_data.images.store import ImageStore
from cls_data.loading.batches import ClassificationBatch, StoredBatch
from cls_data.loading.loaders import BatchDataset, BatchLoader, TrainingLoader, batch_loader
from cls_data.loading.samplers import BatchPlan, EpochSampler, SequentialSampler
from cls_data.splits.splitting import fold_of
from cls_data.statistics.dataset import DatasetStatistics
from cls_export.contract.preprocessing import Preprocessing


@dataclass(frozen=True, slots=True)
class _StoredSplit:
    """One split, decoded."""

    records: Sequence[Record]
    store: ImageStore
    labels: Tensor


class ClassificationDataModule(LightningDataModule):
    """Reads, checks and decodes everything once in `setup`; afterwards a batch is a gather and a device's work.

    Args:
        config: what to read and how to batch it.
        preprocessing: turns image files into pixels, and pixels into model input; the deployed runtime's own.
        augmentation: applied to training batches alone; None for none.
        mixing: mixes the augmented training images with each other; None for none.
        checked: this data went through the gate before, such as when its training run was made.
        progress: show a bar while images are decoded.
    """

    def __init__(
        self,
        config: DataModuleConfig,
        preprocessing: Preprocessing,
        augmentation: Augmentation | None = None,
        *,
        mixing: MixupCutmix | None = None,
        checked: bool = False,
        progress: bool = False,
    ) -> None:
        super().__init__()
        self.config = config
        self.preprocessing = preprocessing
        self._augmentation = augmentation
        self._mixing = mixing
        self._checked = checked
        self._expected_fingerprint: str | None = None
        self._training: TrainingLoader | None = None
        self._goes_on_at = 0
        self._progress = progress
        self._splits: dict[str, _StoredSplit] = {}
        self.class_to_idx: dict[str, int] = {}
        """Class names to indices, from the training split; empty before `setup`."""
        self.report: CheckReport | None = None
        """What the gate found; None before `prepare_data`, or where no gate was asked for."""
        scale, bias = preprocessing.scale_and_bias()
        self._scale = torch.from_numpy(scale)[:, None, None]
        self._bias = torch.from_numpy(bias)[:, None, None]

    def prepare_data(self) -> None:
        """Render the synthetic set, where one is asked for and does not lie there yet; then let the gate look, once.

        Raises:
            DataError: a rule whose policy is `error` found something.
        """
        if self.config.synthetic is not None:
            self.config.synthetic.write(self.config.root)
        if self.config.gate is None or self._checked:
            return
        self.report = check(
            self.config.root,
            self.preprocessing,
            self.config.gate,
            annotations=self.config.annotations,
            quarantine=self._quarantine(),
            workers=self.config.workers,
            progress=self._progress,
        )
        self.report.raise_for_errors()
        self._checked = True
        for line in self.report.summary("warn"):
            logger.warning("data gate: {}", line)

    def setup(self, stage: str | None = None) -> None:
        """Read and decode all splits, whatever the stage; a second call does nothing.

        Raises:
            DataError: rows, labels or images that cannot be trained on; each is named by file and line.
        """
        if self._splits:
            return
        if (quarantine := self._quarantine()) is not None:
            quarantine.refuse_others(self.config.annotations)
        records = {split: found for split in SPLITS if (found := self._read(split))}
        for needed in ("train", "valid"):
            if needed not in records:
                raise DataError(
                    f"{self.config.root}: no {needed}/ folder; training needs train/ and valid/"
                )
        if self.config.fold is not None and self.config.folds is not None:
            records |= fold_of(
                records["train"], records["valid"], self.config.fold, self.config.folds
            )
        self.class_to_idx = class_to_idx(records["train"])
        if len(self.class_to_idx) < 2:
            raise DataError(
                f"{self.config.root}: train has one class, {list(self.class_to_idx)}; it takes two or more"
            )
        labels = {split: label_indices(rows, self.class_to_idx) for split, rows in records.items()}
        self._sampling_weights(labels["train"])
        self._splits = {
            split: _StoredSplit(rows, self._decode(split, rows), labels[split])
            for split, rows in records.items()
        }
        self._refuse_other_data()
        self._caution()

    def _read(self, split: Split) -> list[Record]:
        return read_split(
            self.config.root,
            split,
            annotations=self.config.annotations,
            quarantine=self._quarantine(),
        )

    def _quarantine(self) -> Quarantine | None:
        return None if self.config.quarantine is None else Quarantine.load(self.config.quarantine)

    def _caution(self) -> None:
        """Say which settings work against each other, or against the classes."""
        if self.config.corrects_imbalance_twice():
            logger.warning(
                "data.sampler=weighted and data.class_weights={} both correct the same imbalance; "
                "rare classes now count for too much. Keep one of them.",
                self.config.class_weights,
            )
        for caution in self._augmentation.cautions(self.classes) if self._augmentation else ():
            logger.warning("{}", caution)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: which data it was trained on, and how far into an epoch."""
        batches = 0
        if (
            self._training is not None
            and self.trainer is not None
            and not self.trainer.is_last_batch
        ):
            batches = self._training.handed_out
        return {"fingerprint": self.fingerprint, "batches": batches}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on behind the batches that were trained on, and check, now or once the data is read, that it is this data.

        Raises:
            DataError: rows or images are others now.
        """
        self._expected_fingerprint = state_dict.get("fingerprint")
        if self.trainer is None or self.trainer.state.fn == "fit":
            self._goes_on_at = state_dict.get("batches", 0)
        if self._splits:
            self._refuse_other_data()

    def _refuse_other_data(self) -> None:
        if self._expected_fingerprint not in (None, self.fingerprint):
            raise DataError(
                f"{self.config.root}: rows or images have changed since the checkpoint was trained on them"
            )

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that there are."""
        return tuple(self._splits)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in index order."""
        return tuple(self.class_to_idx)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all rows and image bytes, whatever their order."""
        rows = {
            name: zip(split.records, split.store.digests, strict=True)
            for name, split in self._splits.items()
        }
        return fingerprint(rows)

    @property
    def statistics(self) -> DatasetStatistics:
        """Counts and sizes of every split."""
        sizes = {name: (split.records, split.store.sizes) for name, split in self._splits.items()}
        return DatasetStatistics.of(self.classes, sizes)

    def records(self, split: str) -> Sequence[Record]:
        """Return a split's records, in row order."""
        return self._splits[split].records

    def sizes(self, split: str) -> NDArray[np.int64]:
        """Return width and height of a split's image files in pixels, in row order: int64 [N, 2]."""
        return self._splits[split].store.sizes

    def pixels(self, split: str) -> Tensor:
        """Return a split's stored images, in row order: uint8 [N, 3, H, W]."""
        return self._splits[split].store.pixels

    def images(self, split: str, rows: Tensor) -> Tensor:
        """Return some rows of a split as evaluation sees them: float32 [B, 3, H, W], normalized, on the CPU."""
        return resize(self._normalize(self.pixels(split)[rows].float()), self.preprocessing.size)

    def augmented(self, rows: Sequence[int], draws: int) -> Tensor:
        """Return some training images as they are and as `draws` epochs might show them.

        The result is uint8 [draws + 1, len(rows), 3, H, W]; its first slice holds the stored images.
        """
        stored = self._splits["train"].store.gather(torch.tensor(rows))
        shown = [stored]
        for draw in range(draws):
            generator = torch.Generator().manual_seed(self.config.seed + draw)
            changed = self._augmentation(stored, generator) if self._augmentation else stored
            shown.append(changed.round().to(torch.uint8))
        return torch.stack(shown)

    def class_counts(self) -> Tensor:
        """Return how many training rows each class has: int64 [C]."""
        return torch.bincount(self._splits["train"].labels, minlength=len(self.classes))

    def class_weights(self) -> Tensor | None:
        """Return the loss weights that the configuration asks for: float32 [C], or None."""
        labels = self._splits["train"].labels
        if self.config.class_weights == "balanced":
            return balancing_weights(labels, len(self.classes))
        if self.config.class_weights == "effective_number":
            return effective_number_weights(
                labels, len(self.classes), self.config.effective_number_beta
            )
        return None

    def train_dataloader(self) -> DataLoader[StoredBatch]:
        """Return shuffled or weighted batches, to be augmented on the device."""
        train = self._splits["train"]
        sampler = EpochSampler(
            len(train.records),
            self.config.batch_size,
            self.config.seed,
            weights=self._sampling_weights(train.labels),
            **self._ranks(),
        )
        loader = self._loader(train, sampler)
        assert isinstance(loader, TrainingLoader)
        # Lightning itself restores no loader that was made before its loops were restored, such as by a schedule that
        # asked for the number of steps (2.6.6).
        loader.load_state_dict({"batches": self._goes_on_at})
        device = self._device()
        if device.type == "cuda" and self.config.num_workers == 0:
            loader.prepare_ahead(self._model_input, device)
        self._training, self._goes_on_at = loader, 0
        return loader

    def _sampling_weights(self, labels: Tensor) -> Tensor | None:
        """Return the relative frequency of each training row: float32 [N], or None to visit each once."""
        if self.config.sampler == "shuffle":
            return None
        per_class = balancing_weights(labels, len(self.class_to_idx))
        if self.config.sampling_weights is not None:
            # How often a class comes, shared out to its rows.
            per_class = per_class * weights_of(self.config.sampling_weights, self.class_to_idx)
        return per_class[labels]

    def val_dataloader(self) -> DataLoader[StoredBatch]:
        """Return the validation split, in order."""
        return self._sequential("valid")

    def test_dataloader(self) -> DataLoader[StoredBatch]:
        """Return the test split, in order."""
        return self._sequential("test")

    def predict_dataloader(self) -> DataLoader[StoredBatch]:
        """Return the split that `predict_split` names, in order and not augmented."""
        return self._sequential(self.config.predict_split)

    def unaugmented(self, split: str, device: torch.device) -> Iterator[ClassificationBatch]:
        """Yield all rows of a split in order, as validation sees them, on a device."""
        for batch in self._sequential(split):
            yield self.on_after_batch_transfer(move_data_to_device(batch, device), 0)

    def on_after_batch_transfer(
        self, batch: StoredBatch | ClassificationBatch, dataloader_idx: int
    ) -> ClassificationBatch:
        """Augment (a batch that carries a seed) and normalize, where the batch lies, unless that was done ahead."""
        made_ahead = batch["images"].dtype != torch.uint8
        return (
            cast("ClassificationBatch", batch)
            if made_ahead
            else self._model_input(cast("StoredBatch", batch))
        )

    def _model_input(self, batch: StoredBatch) -> ClassificationBatch:
        images, labels = batch["images"], batch["labels"]
        if "seed" not in batch:
            # Resized for predictions of a train split that is stored at another size; the others fit.
            shown = resize(self._normalize(images.float()), self.preprocessing.size)
            return ClassificationBatch(images=shown, labels=labels, index=batch["index"])
        generator = torch.Generator().manual_seed(batch["seed"])
        changed = self._augmentation(images, generator) if self._augmentation else images.float()
        # Normalised while it is small: what follows is linear.
        changed = resize(self._normalize(changed), self._training_size())
        made = ClassificationBatch(images=changed, labels=labels, index=batch["index"])
        if self._mixing is not None:
            made["images"], made["targets"] = self._mixing(
                changed, labels, len(self.class_to_idx), generator
            )
        return made

    def _training_size(self) -> tuple[int, int]:
        """Return height and width of this epoch's training images."""
        if not self.config.growing_sizes or self.trainer is None:
            return self.preprocessing.size
        done = self.trainer.current_epoch / max(1, self.trainer.max_epochs or 1)
        return next(
            (stage.size for stage in self.config.growing_sizes if done < stage.until),
            self.preprocessing.size,
        )

    def _normalize(self, images: Tensor) -> Tensor:
        """Apply `pixels * scale + bias` in place, the same two operations as the runtime's."""
        if self._scale.device != images.device:
            self._scale, self._bias = self._scale.to(images.device), self._bias.to(images.device)
        return images.mul_(self._scale).add_(self._bias)

    def _decode(self, split: str, rows: Sequence[Record]) -> ImageStore:
        stored = self.config.stored_size if split == "train" else None
        return ImageStore.build(
            rows,
            self.preprocessing.at(*stored) if stored else self.preprocessing,
            workers=self.config.workers,
            folder=self.config.store,
            strict=self.config.gate is None or self.config.gate.damaged_images == "error",
            progress=f"decoding {split}" if self._progress else None,
        )

    def _sequential(self, name: str) -> DataLoader[StoredBatch]:
        if name not in self._splits:
            raise DataError(
                f"{self.config.root}: no {name}/ folder; there are {', '.join(self._splits)}"
            )
        split = self._splits[name]
        return self._loader(
            split,
            SequentialSampler(len(split.records), self.config.eval_batch_size, **self._ranks()),
        )

    def _loader(self, split: _StoredSplit, sampler: Sampler[BatchPlan]) -> BatchLoader:
        device = self._device().type
        return batch_loader(
            BatchDataset(split.store.rows, split.labels, pinned=device == "cuda"),
            sampler,
            workers=0
            if device == "mps"
            else self.config.num_workers,  # a forked worker cannot use Metal
            persistent_workers=self.config.persistent_workers,
        )

    def _device(self) -> torch.device:
        return torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device

    def _ranks(self) -> Mapping[str, int]:
        if self.trainer is None:
            return {"rank": 0, "world_size": 1}
        return {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}
