"""Settings of the data module."""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cls_data.synthetic import SyntheticNumbers

Count = Annotated[int, Field(ge=1)]


class DataModuleConfig(BaseModel):
    """What the data module does; where it runs (devices, ranks) is the trainer's question.

    Attributes:
        root: folder that holds train/, valid/ and perhaps test/.
        batch_size: images per training step and rank.
        eval_batch_size: images per validation, test and prediction step and rank.
        num_workers: loader processes. The store is in memory and a batch is one gather, so 0 is the fast choice.
        persistent_workers: keep the processes between epochs; without processes it is off whatever is asked.
        sampler: `shuffle` visits every training image once an epoch; `weighted` draws with replacement so that
            all classes come equally often.
        class_weights: `balanced` asks for a loss weighted by inverse class frequency.
        seed: order and augmentation are functions of it, of the epoch and of the batch number, and of nothing else.
        predict_split: what the predict loader reads.
        decode_threads: threads that fill the store; all cores when None.
        synthetic: a set to render into `root` first, unless it lies there already.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: Path
    batch_size: Count = 64
    eval_batch_size: Count = 256
    num_workers: Annotated[int, Field(ge=0)] = 0
    persistent_workers: bool = True
    sampler: Literal["shuffle", "weighted"] = "shuffle"
    class_weights: Literal["balanced"] | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    predict_split: Literal["train", "valid", "test"] = "valid"
    decode_threads: Count | None = None
    synthetic: SyntheticNumbers | None = None

    @model_validator(mode="before")
    @classmethod
    def _no_workers_no_persistence(cls, values: object) -> object:
        if isinstance(values, dict) and values.get("num_workers", 0) == 0:
            return {**values, "persistent_workers": False}
        return values

    @property
    def threads(self) -> int:
        """Threads that fill the store."""
        return self.decode_threads or os.cpu_count() or 1

    def corrects_imbalance_twice(self) -> bool:
        """Whether sampler and loss both correct the same imbalance, which over-corrects it."""
        return self.sampler == "weighted" and self.class_weights is not None
