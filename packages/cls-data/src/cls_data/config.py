"""Settings of the data module."""

import itertools
import os
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from cls_data.errors import DataError
from cls_data.gate.config import GateConfig
from cls_data.paths import expand_path
from cls_data.splits.folder_split import FolderSplit
from cls_data.synthetic.numbers import SyntheticNumbers

UserPath = Annotated[Path, AfterValidator(expand_path)]
Count = Annotated[int, Field(ge=1)]
Side = Annotated[int, Field(ge=1, le=8192)]
SamplingWeight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ResizeStage(BaseModel):
    """Height and width of training images until a share of all epochs, above 0 and below 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    until: Annotated[float, Field(gt=0, lt=1)]
    size: tuple[Side, Side]


class DataModuleConfig(BaseModel):
    """Settings of `ClassificationDataModule`. The trainer sets devices and ranks.

    Attributes:
        root: Folder with train/, valid/, and optionally test/.
        layout: `jsonl` for annotation files in these folders; `folder` for class folders in them,
            or directly in the root.
        split: For `folder`: how to split class folders that have no valid folder.
        annotations: Subfolder of the root with these folders instead, such as `folds/0`. Images
            may be anywhere in the root.
        fold: Which of `folds` cross-validation folds to use as valid. Rows of train and valid are
            redistributed: groups and copies stay together, and every class is spread over the
            folds. Test stays as it is. None for the split as annotated.
        folds: Number of folds.
        quarantine: File written by `cls-data check ROOT --quarantine FILE`: rows to leave out.
        gate: Policies and thresholds of the data gate, which runs first; None to skip it.
        batch_size: Images per training step, over all devices.
        batch_size_per_device: Images per training step and device, in place of `batch_size`.
        eval_batch_size: Images per validation, test, and prediction step, over all devices.
        num_workers: Loader processes. A batch is one gather from memory, so 0 is usually fastest.
        persistent_workers: Keep the processes between epochs; ignored without processes.
        sampler: `shuffle` visits every training image once an epoch. `weighted` draws with
            replacement so that all classes are equally frequent, or as `sampling_weights` says.
        sampling_weights: For `weighted`, the relative frequency of each class, by name.
        class_weights: Loss weights: `balanced` by inverse class frequency, `effective_number` by
            the inverse effective number of samples.
        effective_number_beta: From 0 (no weighting) to nearly 1 (inverse frequency).
        seed: Seed of row order and augmentation, which otherwise depend only on epoch and batch.
        predict_split: Split of the predict loader.
        stored_size: Height and width in pixels of stored training images; the model's input size
            if None. Larger images leave room for random crops. Smaller ones make augmentation
            cheaper, since resizing comes last.
        growing_sizes: Stages of smaller training images (progressive resizing). The rest of
            training, and evaluation, use the model's input size.
        store: Folder for files of decoded images, which runs and ranks share; None for memory.
        shards: Folder or URL that `cls-data shard` has written, to read the training images from
            instead of their files; None for the files. Valid and test are read from their files.
        shard_cache: Folder for copies of blocks of shards, which the processes of a node share.
        shard_cache_gigabytes: Limit of these copies, for each set of shards.
        shard_window: Blocks of a window. Blocks are shuffled, then the rows within each window.
        decode_workers: Processes that check and decode images; all cores if None.
        synthetic: Dataset to render into `root` first, if it does not exist yet.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: UserPath
    layout: Literal["jsonl", "folder"] = "jsonl"
    split: FolderSplit = FolderSplit()
    annotations: str = ""
    fold: Annotated[int, Field(ge=0)] | None = None
    folds: Annotated[int, Field(ge=2)] | None = None
    quarantine: UserPath | None = None
    gate: GateConfig | None = GateConfig()
    batch_size: Count = 64
    batch_size_per_device: Count | None = None
    eval_batch_size: Count = 256
    num_workers: Annotated[int, Field(ge=0)] = 0
    persistent_workers: bool = True
    sampler: Literal["shuffle", "weighted"] = "shuffle"
    sampling_weights: dict[str, SamplingWeight] | None = None
    class_weights: Literal["balanced", "effective_number"] | None = None
    effective_number_beta: Annotated[float, Field(ge=0, lt=1)] = 0.999
    seed: Annotated[int, Field(ge=0)] = 0
    predict_split: Literal["train", "valid", "test"] = "valid"
    stored_size: tuple[Side, Side] | None = None
    growing_sizes: tuple[ResizeStage, ...] = ()
    store: UserPath | None = None
    shards: Annotated[str, Field(min_length=1)] | None = None
    shard_cache: UserPath | None = None
    shard_cache_gigabytes: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 100.0
    shard_window: Count = 64
    decode_workers: Count | None = None
    synthetic: SyntheticNumbers | None = None

    @model_validator(mode="before")
    @classmethod
    def _disable_persistence_without_workers(cls, values: object) -> object:
        if not isinstance(values, dict):
            return values
        if values.get("num_workers", 0) == 0:
            return {**values, "persistent_workers": False}
        return values

    @model_validator(mode="after")
    def _check_sampling_weights(self) -> Self:
        if self.sampling_weights is not None and self.sampler != "weighted":
            raise ValueError(
                f"sampling_weights need sampler=weighted, but sampler is {self.sampler!r}"
            )
        return self

    @model_validator(mode="after")
    def _check_growing_sizes(self) -> Self:
        ends = [stage.until for stage in self.growing_sizes]
        for earlier, later in itertools.pairwise(ends):
            if later <= earlier:
                raise ValueError(
                    f"growing_sizes: expected `until` to increase from stage to stage, got {ends}"
                )
        return self

    @model_validator(mode="after")
    def _check_layout(self) -> Self:
        if self.layout == "jsonl" and self.split != FolderSplit():
            raise ValueError(
                "split needs data=folder (layout: folder); annotations state their split"
            )
        if self.layout == "folder" and self.annotations:
            raise ValueError(
                f"annotations={self.annotations!r} needs data=jsonl (layout: jsonl); class folders "
                "have none"
            )
        if self.layout == "folder" and self.synthetic is not None:
            raise ValueError("synthetic needs layout=jsonl; rendered images have annotations")
        return self

    @model_validator(mode="after")
    def _check_shards(self) -> Self:
        if self.shards is None:
            if self.shard_cache is not None:
                raise ValueError("shard_cache needs shards=URL, written by `cls-data shard`")
            return self
        if self.shard_cache is None:
            raise ValueError("shards=URL needs shard_cache=FOLDER, a folder on a local disk")
        refused = {
            "layout=folder": (self.layout == "folder", "shards hold rows of JSONL annotations"),
            "fold": (self.fold is not None, "the folds would move rows between train and valid"),
            "sampler=weighted": (
                self.sampler == "weighted",
                "a batch would need rows of any block; use class_weights",
            ),
            "num_workers": (self.num_workers > 0, "threads read the blocks; set num_workers=0"),
            "synthetic": (self.synthetic is not None, "write the data set with `cls-data synth`"),
        }
        for name, (is_set, reason) in refused.items():
            if is_set:
                raise ValueError(f"shards cannot be combined with {name}: {reason}")
        return self

    @model_validator(mode="after")
    def _check_fold(self) -> Self:
        if (self.fold is None) != (self.folds is None):
            raise ValueError(
                "fold and folds must be set together, such as fold=0 and folds=5; "
                f"got fold={self.fold} and folds={self.folds}"
            )
        if self.fold is None or self.folds is None:
            return self
        if self.fold >= self.folds:
            raise ValueError(
                f"fold must be between 0 and {self.folds - 1} for folds={self.folds}; "
                f"got {self.fold}"
            )
        return self

    @property
    def num_decode_workers(self) -> int:
        """Processes that check and decode images."""
        if self.decode_workers is not None:
            return self.decode_workers
        return os.cpu_count() or 1

    def rank_batch_size(self, world_size: int) -> int:
        """Return the images per training step of each of several devices.

        Raises:
            DataError: The devices cannot share `batch_size` equally.
        """
        if self.batch_size_per_device is not None:
            return self.batch_size_per_device
        if self.batch_size % world_size != 0:
            raise DataError(
                f"data.batch_size={self.batch_size} is the number of images per step over all "
                f"devices, and {world_size} devices cannot share it equally; set a multiple of "
                f"{world_size}, or data.batch_size_per_device"
            )
        return self.batch_size // world_size

    @property
    def is_strict(self) -> bool:
        """Whether damaged images are an error."""
        if self.gate is None:
            return True
        return self.gate.damaged_images == "error"

    def training_size(self, progress: float) -> tuple[int, int] | None:
        """Return the size of training images after a share of the epochs; None at full size."""
        for stage in self.growing_sizes:
            if progress < stage.until:
                return stage.size
        return None
