"""Augmentation pipelines: which ops change an image, and with which settings."""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, InstanceOf, model_validator
from torch import Tensor

from cls_data.augmentation.broadcast import BroadcastDegradation
from cls_data.augmentation.color_jitter import ColorJitter
from cls_data.augmentation.filters import GaussianBlur
from cls_data.augmentation.geometry import GeometricTransform, resample
from cls_data.augmentation.ops import (
    AugmentationOp,
    AugmentationSettings,
    OpParameters,
    Share,
    change_selected,
    move_to_device,
)
from cls_data.augmentation.random_erasing import RandomErasing
from cls_data.augmentation.random_streams import ParamSampler, Values
from cls_data.loading.batches import BatchSeed, BatchShare

_DIGITS = re.compile("[0-9]+")
_PIXELS_PER_CHUNK = 64 * 64 * 64
"""Chunk size on a CPU: few calls, yet a chunk stays in the processor's cache between ops."""


class Augmentation(ABC):
    """Maps a batch of stored images to a batch of augmented images."""

    @abstractmethod
    def __call__(self, images: Tensor, seed: int) -> Tensor:
        """Return float32 [B, 3, H, W] in 0-255 for uint8 [B, 3, H, W], which is not modified.

        All parameters are a function of the seed and of the order of the samples.
        """

    def augment_share(self, images: Tensor, seed: int, share: BatchShare) -> Tensor:
        """Augment the samples of a batch that are in this process; several devices share it.

        Override this if a sample's parameters should not depend on the number of devices. By
        default, every device draws with its own seed.
        """
        return self(images, seed)

    def augment_batches(self, images: Tensor, batches: Sequence[BatchSeed]) -> Tensor:
        """Augment several batches, one behind the other in `images`, each with its own seed.

        The result is that of augmenting them one by one. Override this if larger inputs are faster.
        """
        sizes = [batch.num_samples for batch in batches]
        augmented = []
        for rows, batch in zip(torch.split(images, sizes), batches, strict=True):
            if batch.share is None:
                augmented.append(self(rows, batch.seed))
            else:
                augmented.append(self.augment_share(rows, batch.seed, batch.share))
        return augmented[0] if len(augmented) == 1 else torch.cat(augmented)

    def label_warnings(self, classes: Sequence[str]) -> list[str]:
        """Return warnings about settings that can turn one of these classes into another."""
        return []


class AugmentationPipeline(AugmentationSettings, Augmentation):
    """Applies every op among its fields, in the order of their `stage`; None leaves an op out.

    To add an op to a pipeline, declare a field for it in a subclass, or name it under `extra_ops`.
    An op draws from its own random stream, named like its field, so adding or changing an op does
    not affect the parameters of another.

    Settings of an op that are not given keep the pipeline's defaults: `BroadcastAugmentation` with
    `geometry: {rotation: 4}` keeps its shear.

    Attributes:
        clean: Probability of leaving a sample unchanged.
        geometry: Crop, zoom, rotation, shear, shift, perspective, flips.
        color: Brightness, contrast, saturation.
        blur: Gaussian blur.
        broadcast: Zoom, low resolution, noise, compression.
        erasing: A rectangle of one gray level.
        extra_ops: Further ops by name.
    """

    clean: Share = 0.0
    geometry: GeometricTransform | None = None
    color: ColorJitter | None = None
    blur: GaussianBlur | None = None
    broadcast: BroadcastDegradation | None = None
    erasing: RandomErasing | None = None
    extra_ops: dict[str, InstanceOf[AugmentationOp] | None] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _merge_with_defaults(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        merged = dict(values)
        for name, value in values.items():
            field = cls.model_fields.get(name)
            default = None if field is None else field.default
            if isinstance(value, dict) and isinstance(default, AugmentationOp):
                merged[name] = {**default.model_dump(), **value}
        return merged

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        clashes = sorted(self.extra_ops.keys() & type(self).model_fields.keys())
        if clashes:
            raise ValueError(
                f"extra_ops.{clashes[0]}: {clashes[0]!r} is a setting of {type(self).__name__}; "
                "choose another name"
            )

        return self

    def ops(self) -> dict[str, AugmentationOp]:
        """Return the ops by name, in the order in which they run."""
        ops = {}
        for name, value in [*self, *self.extra_ops.items()]:
            if isinstance(value, AugmentationOp):
                ops[name] = value
        by_stage = sorted(ops.items(), key=lambda item: item[1].stage)
        return dict(by_stage)

    def draw(
        self, num_samples: int, seed: int, share: BatchShare | None = None
    ) -> dict[str, OpParameters]:
        """Draw the parameters of every op for a batch, each op from its own stream."""
        params = {}
        for name, op in self.ops().items():
            params[name] = op.draw(ParamSampler(num_samples, seed, name, share))
        return params

    def __call__(self, images: Tensor, seed: int) -> Tensor:
        """Return float32 [B, 3, H, W] in 0-255 for uint8 [B, 3, H, W]."""
        return self.augment_batches(images, [BatchSeed(len(images), seed)])

    def augment_share(self, images: Tensor, seed: int, share: BatchShare) -> Tensor:
        """Augment samples with the parameters that one device would draw for them."""
        return self.augment_batches(images, [BatchSeed(len(images), seed, share)])

    def augment_batches(self, images: Tensor, batches: Sequence[BatchSeed]) -> Tensor:
        """Augment several batches at once; a GPU takes little longer for thousands of images."""
        batch_size, _, height, width = images.shape
        clean, params = _join([self._draw_with_clean(batch) for batch in batches])
        draws = _BatchDraws(
            clean=clean,
            matrices=self._combined_matrices(params, width / height, batch_size),
            params=params,
        )

        chunk_size = max(1, _PIXELS_PER_CHUNK // (height * width))
        if images.device.type != "cpu" or batch_size <= chunk_size:
            return self._apply(images, draws)

        result = torch.empty(images.shape)
        for start in range(0, batch_size, chunk_size):
            rows = slice(start, start + chunk_size)
            result[rows] = self._apply(images[rows], draws.select(rows))
        return result

    def label_warnings(self, classes: Sequence[str]) -> list[str]:
        """Return warnings about settings that turn one digit into another, if there are digits."""
        has_digits = any(_DIGITS.fullmatch(name) for name in classes)

        if self.geometry is None or not has_digits:
            return []

        warnings = self.geometry.label_warnings()
        return [f"augmentation.geometry.{warning}" for warning in warnings]

    def _draw_with_clean(self, batch: BatchSeed) -> "_Draws":
        sampler = ParamSampler(batch.num_samples, batch.seed, "clean", batch.share)
        return sampler.bernoulli(self.clean), self.draw(*batch)

    def _combined_matrices(
        self, params: Mapping[str, OpParameters], aspect: float, batch_size: int
    ) -> Values:
        """Return the product of all ops' matrices: float32 [B, 3, 3]."""
        identity = np.eye(3, dtype=np.float32)
        combined: Values = np.tile(identity, (batch_size, 1, 1))
        for name, op in self.ops().items():
            matrices = op.matrices(params[name], aspect)
            if matrices is not None:
                combined = combined @ matrices
        return combined

    def _apply(self, stored: Tensor, draws: "_BatchDraws") -> Tensor:
        images = stored.to(torch.float32, copy=True)  # ops change images in place
        is_moved = (draws.matrices != np.eye(3)).any(axis=(1, 2))
        images = change_selected(
            images,
            is_moved,
            resample,
            matrices=draws.matrices,
        )

        for name, op in self.ops().items():
            images = op.apply(images, draws.params[name])

        if draws.clean.any():
            clean = move_to_device(np.flatnonzero(draws.clean), images)
            originals = stored.index_select(0, clean)
            images.index_copy_(0, clean, originals.float())
        return images


_Draws = tuple[NDArray[np.bool_], Mapping[str, OpParameters]]
"""Which samples stay clean, and the parameters of each op."""


def _join(draws: Sequence[_Draws]) -> _Draws:
    """Join what was drawn for several batches."""
    if len(draws) == 1:
        return draws[0]
    clean = np.concatenate([each for each, _ in draws])
    params: dict[str, OpParameters] = {}
    for op, op_params in draws[0][1].items():
        params[op] = {}
        for name in op_params:
            params[op][name] = np.concatenate([each[op][name] for _, each in draws])
    return clean, params


@dataclass(frozen=True, slots=True)
class _BatchDraws:
    """Everything drawn for some batches; the first axis of each array is the sample.

    `clean` samples stay unchanged. `matrices` are for `resample`. `params` are given by op.
    """

    clean: NDArray[np.bool_]
    matrices: Values
    params: Mapping[str, OpParameters]

    def select(self, rows: slice) -> "_BatchDraws":
        """Return the draws of some samples."""
        params = {}
        for op, op_params in self.params.items():
            params[op] = {name: values[rows] for name, values in op_params.items()}
        return _BatchDraws(
            clean=self.clean[rows],
            matrices=self.matrices[rows],
            params=params,
        )


class LightAugmentation(AugmentationPipeline):
    """Mild affine transforms, color jitter, and erasing; every number stays readable."""

    geometry: GeometricTransform | None = GeometricTransform(
        rotation=8, translation=0.06, zoom=(0.88, 1.12), shear=6
    )
    color: ColorJitter | None = ColorJitter(brightness=0.3, contrast=0.3, saturation=0.4)
    erasing: RandomErasing | None = RandomErasing(probability=0.25, area=(0.02, 0.1))


class BroadcastAugmentation(AugmentationPipeline):
    """For small crops from broadcasts: adds perspective, blur, and broadcast degradation."""

    clean: Share = 0.1
    geometry: GeometricTransform | None = GeometricTransform(
        rotation=10,
        translation=0.06,
        zoom=(0.9, 1.1),
        shear=8,
        perspective=0.15,
        crop_area=(0.8, 1),
        crop_aspect=(0.9, 1.1),
    )
    color: ColorJitter | None = ColorJitter(
        brightness=0.35, contrast=0.35, saturation=0.5, gray=0.05
    )
    blur: GaussianBlur | None = GaussianBlur(probability=0.2)
    broadcast: BroadcastDegradation | None = BroadcastDegradation()
    erasing: RandomErasing | None = RandomErasing(probability=0.2, area=(0.02, 0.1))


class PhotoAugmentation(AugmentationPipeline):
    """For photographs, as ImageNet models are trained: crops from a third of the area, flips."""

    geometry: GeometricTransform | None = GeometricTransform(
        rotation=5, crop_area=(0.35, 1), crop_aspect=(0.75, 1.3333), horizontal_flip=0.5
    )
    color: ColorJitter | None = ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, gray=0.05)
    blur: GaussianBlur | None = GaussianBlur(probability=0.1)
    erasing: RandomErasing | None = RandomErasing(probability=0.1, area=(0.02, 0.2))
