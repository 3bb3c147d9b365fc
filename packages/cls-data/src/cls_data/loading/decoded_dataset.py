"""The decoded splits of a data root, with the classes and weights that follow from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from cls_data.annotations.class_tensors import (
    balancing_weights,
    effective_number_weights,
    encode_labels,
    sampling_weights_tensor,
)
from cls_data.annotations.classes import build_class_to_idx
from cls_data.annotations.fingerprint import compute_fingerprint
from cls_data.annotations.reading import Record, Split
from cls_data.config import DataModuleConfig
from cls_data.errors import DataError
from cls_data.images.store import ImageStore
from cls_data.shards.rows import ShardRows, open_shards
from cls_data.splits.configured_rows import read_records
from cls_data.statistics.dataset import DatasetStatistics
from cls_export.contract.preprocessing import Preprocessing


@dataclass(frozen=True, slots=True)
class DecodedSplit:
    """The rows of one split, their decoded images, and their class indices, int64 [N]."""

    records: Sequence[Record]
    store: ImageStore
    labels: Tensor


def _open_shards(
    config: DataModuleConfig, records: Sequence[Record], preprocessing: Preprocessing
) -> ImageStore:
    assert config.shards is not None
    assert config.shard_cache is not None
    store = open_shards(
        config.shards,
        config.shard_cache,
        max_bytes=int(config.shard_cache_gigabytes * 1e9),
        window=config.shard_window,
    )
    assert isinstance(store.rows, ShardRows)
    store.rows.index.check_rows(records, config.shards)
    store.rows.index.check_pixels(preprocessing, config.shards, is_strict=config.is_strict)
    return store


@dataclass(frozen=True)
class DecodedDataset:
    """All splits of a data root: train, valid, and optionally test; empty before loading."""

    config: DataModuleConfig
    splits: Mapping[str, DecodedSplit] = field(default_factory=dict)
    class_to_idx: dict[str, int] = field(default_factory=dict)

    @classmethod
    def load(
        cls,
        config: DataModuleConfig,
        preprocessing: Preprocessing,
        *,
        checked: dict[Split, list[Record]] | None = None,
        progress: bool = False,
    ) -> Self:
        """Read, validate, and decode all splits.

        Args:
            config: What to read.
            preprocessing: Decodes and resizes one image.
            checked: The rows as the data gate has read them, to save reading them again.
            progress: Show progress bars.

        Raises:
            DataError: Rows, labels, or images are invalid. The message lists them by file and line.
        """
        records = read_records(config, checked)
        indices = build_class_to_idx(records["train"])
        if len(indices) < 2:
            raise DataError(
                f"{config.root}: train has one class, {list(indices)}; expected two or more"
            )

        labels = {}
        for split, rows in records.items():
            labels[split] = encode_labels(rows, indices)
        if config.sampling_weights is not None:
            sampling_weights_tensor(config.sampling_weights, indices)  # fail before decoding

        splits: dict[str, DecodedSplit] = {}
        for split, rows in records.items():
            stored_as = preprocessing
            if split == "train" and config.stored_size is not None:
                stored_as = preprocessing.with_size(*config.stored_size)
            if split == "train" and config.shards is not None:
                store = _open_shards(config, rows, stored_as)
                splits[split] = DecodedSplit(rows, store, labels[split])
                continue
            store = ImageStore.build(
                rows,
                stored_as,
                workers=config.num_decode_workers,
                folder=config.store,
                strict=config.is_strict,
                progress=f"decoding {split}" if progress else None,
            )
            splits[split] = DecodedSplit(rows, store, labels[split])
        dataset = cls(config, splits, indices)
        dataset._check_that_shards_passed_the_gate()
        return dataset

    def _check_that_shards_passed_the_gate(self) -> None:
        """Raise a `DataError` if the gate saw other rows or images when the shards were written."""
        rows = None if self.config.shards is None else self["train"].store.rows
        if not isinstance(rows, ShardRows) or self.config.gate is None:
            return
        if rows.index.fingerprint != self.fingerprint():
            raise DataError(
                f"data.shards={self.config.shards}: rows or images of {self.config.root} have "
                "changed since `cls-data shard` checked them. Run it again, which keeps the shards "
                "whose images are the same, or skip the check with data.gate=null"
            )

    def __getitem__(self, name: str) -> DecodedSplit:
        """Return a split; raise a `DataError` if the data root does not have it."""
        if name not in self.splits:
            existing = ", ".join(self.splits)
            raise DataError(
                f"{self.config.root}: no {name}/ folder; existing splits: {existing}",
            )
        return self.splits[name]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in index order."""
        return tuple(self.class_to_idx)

    def fingerprint(self) -> str:
        """Return the SHA-256 of all rows and image bytes, independent of their order.

        Computed once: it takes a minute for 10 million rows, and every checkpoint has it.
        """
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        rows = {}
        for name, split in self.splits.items():
            digests = split.store.digests
            rows[name] = zip(split.records, digests, strict=True)
        return compute_fingerprint(rows)

    def statistics(self) -> DatasetStatistics:
        """Return the class counts and image sizes of every split."""
        sizes = {}
        for name, split in self.splits.items():
            sizes[name] = split.records, split.store.sizes
        return DatasetStatistics.from_splits(self.classes, sizes)

    def class_counts(self) -> Tensor:
        """Return the number of training rows of each class: int64 [C]."""
        labels = self["train"].labels
        num_classes = len(self.classes)
        return torch.bincount(labels, minlength=num_classes)

    def class_weights(self) -> Tensor | None:
        """Return the loss weights that the configuration requests: float32 [C], or None."""
        labels = self["train"].labels
        num_classes = len(self.classes)
        if self.config.class_weights == "balanced":
            return balancing_weights(labels, num_classes)
        if self.config.class_weights == "effective_number":
            return effective_number_weights(
                labels,
                num_classes,
                self.config.effective_number_beta,
            )
        return None

    def sampling_weights(self) -> Tensor | None:
        """Return the relative sampling frequency of each training row: float32 [N], or None."""
        if self.config.sampler == "shuffle":
            return None

        labels = self["train"].labels
        per_class = balancing_weights(labels, len(self.classes))
        if self.config.sampling_weights is not None:
            # The frequency of a class is divided among its rows.
            requested = sampling_weights_tensor(self.config.sampling_weights, self.class_to_idx)
            per_class = per_class * requested
        return per_class[labels]
