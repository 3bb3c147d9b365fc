"""Settings of the data module."""

import itertools
import os
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cls_data.gate.config import GateConfig
from cls_data.synthetic.numbers import SyntheticNumbers

Count = Annotated[int, Field(ge=1)]
Side = Annotated[int, Field(ge=1, le=8192)]


class GrowingSize(BaseModel):
    """Training images are of this size until a share of the epochs is over.

    Attributes:
        until: share of all epochs, above 0 and below 1.
        size: height and width in pixels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    until: Annotated[float, Field(gt=0, lt=1)]
    size: tuple[Side, Side]


class DataModuleConfig(BaseModel):
    """What the data module does; where it runs (devices, ranks) is the trainer's question.

    Attributes:
        root: folder that holds train/, valid/ and perhaps test/.
        annotations: subfolder of the root that holds those instead, such as `folds/0`; images may lie anywhere in root.
        fold: which fold of `folds` is valid; the rows of train and valid are dealt anew for it, whole groups and copies
            together and every class spread over the folds. None for the split as it lies there; test stays as it is.
        folds: how many there are.
        quarantine: a file that `cls-data check ROOT --quarantine FILE` wrote: rows to leave out.
        gate: policies and thresholds of the check that comes first; None for no check.
        batch_size: images per training step and rank.
        eval_batch_size: images per validation, test and prediction step and rank.
        num_workers: loader processes. The store is in memory and a batch is one gather, so 0 is the fast choice.
        persistent_workers: keep the processes between epochs; without processes it is off whatever is asked.
        sampler: `shuffle` visits every training image once an epoch; `weighted` draws with replacement so that
            all classes come equally often, or as often as `sampling_weights` says.
        sampling_weights: for `weighted`, how often each class comes, relative to the others; all classes, by name.
        class_weights: `balanced` asks for a loss weighted by inverse class frequency, `effective_number` for one
            weighted by the inverse effective number of samples.
        effective_number_beta: of the effective number; from 0, no weighting, to nearly 1, inverse frequency.
        seed: order and augmentation are functions of it, of the epoch and of the batch number, and of nothing else.
        predict_split: what the predict loader reads.
        stored_size: height and width in pixels of the stored training images; the model's input size if None. More
            leaves a random crop something to cut, less makes augmentation cheaper: it is enlarged last.
        growing_sizes: stages of smaller training images, the first ones first; what follows the last stage is trained
            at the model's input size, at which everything else sees images all along (progressive resizing).
        store: folder for files of stored images, mapped by all runs and ranks that need them; None for memory.
        decode_workers: processes that check and decode images; all cores when None.
        synthetic: a set to render into `root` first, unless it lies there already.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: Path
    annotations: str = ""
    fold: Annotated[int, Field(ge=0)] | None = None
    folds: Annotated[int, Field(ge=2)] | None = None
    quarantine: Path | None = None
    gate: GateConfig | None = GateConfig()
    batch_size: Count = 64
    eval_batch_size: Count = 256
    num_workers: Annotated[int, Field(ge=0)] = 0
    persistent_workers: bool = True
    sampler: Literal["shuffle", "weighted"] = "shuffle"
    sampling_weights: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] | None = None
    class_weights: Literal["balanced", "effective_number"] | None = None
    effective_number_beta: Annotated[float, Field(ge=0, lt=1)] = 0.999
    seed: Annotated[int, Field(ge=0)] = 0
    predict_split: Literal["train", "valid", "test"] = "valid"
    stored_size: tuple[Side, Side] | None = None
    growing_sizes: tuple[GrowingSize, ...] = ()
    store: Path | None = None
    decode_workers: Count | None = None
    synthetic: SyntheticNumbers | None = None

    @model_validator(mode="before")
    @classmethod
    def _no_workers_no_persistence(cls, values: object) -> object:
        if isinstance(values, dict) and values.get("num_workers", 0) == 0:
            return {**values, "persistent_workers": False}
        return values

    @model_validator(mode="after")
    def _sampling_weights_are_for_a_weighted_sampler(self) -> Self:
        if self.sampling_weights is not None and self.sampler != "weighted":
            raise ValueError(
                f"sampling_weights are for sampler=weighted alone, and sampler is {self.sampler!r}"
            )
        return self

    @model_validator(mode="after")
    def _growing_sizes_follow_each_other(self) -> Self:
        ends = [stage.until for stage in self.growing_sizes]
        if any(later <= earlier for earlier, later in itertools.pairwise(ends)):
            raise ValueError(
                f"growing_sizes: each stage must last longer than the one before, got until {ends}"
            )
        return self

    @model_validator(mode="after")
    def _a_fold_is_one_of_some(self) -> Self:
        if (self.fold is None) != (self.folds is None):
            raise ValueError(
                f"fold and folds go together, such as fold=0 of folds=5; got {self.fold} of {self.folds}"
            )
        if self.fold is not None and self.folds is not None and self.fold >= self.folds:
            raise ValueError(
                f"fold must be below folds={self.folds}, since the first is 0; got {self.fold}"
            )
        return self

    @property
    def workers(self) -> int:
        """Processes that check and decode images."""
        return self.decode_workers or os.cpu_count() or 1

    def corrects_imbalance_twice(self) -> bool:
        """Whether sampler and loss both correct the same imbalance, which over-corrects it."""
        return self.sampler == "weighted" and self.class_weights is not None
