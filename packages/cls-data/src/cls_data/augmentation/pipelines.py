"""Recipes: which parts an augmentation has, in what order, and with what settings."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import model_validator
from torch import Tensor

from cls_data.augmentation.broadcast import Broadcast, zoom_matrices
from cls_data.augmentation.color_jitter import ColorJitter
from cls_data.augmentation.filters import Blur
from cls_data.augmentation.geometry import Geometry, resample
from cls_data.augmentation.params import AugmentationOp, Parameters, ParamSampler, Share, on_device
from cls_data.augmentation.random_erasing import RandomErasing

_PIXELS_AT_ONCE = 64 * 64 * 64
"""On a CPU: enough that calls cost little, and few enough to stay in the processor's cache from step to step."""


class Augmentation(ABC):
    """Maps a batch of stored images to a batch of changed ones."""

    @abstractmethod
    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return float32 [B, 3, H, W] in 0-255 for uint8 [B, 3, H, W]; all draws come from the CPU generator."""

    def cautions(self, classes: Sequence[str]) -> list[str]:
        """Say which settings would turn an image of one of these classes into one of another."""
        return []


class AugmentationPipeline(AugmentationOp, Augmentation):
    """Geometry, color, blur, broadcast and erasing, in this order; a part that is None is left out.

    Settings of a part that are not given are those of the recipe, not of the part: `BroadcastAugmentation` with
    `geometry: {rotation: 4}` keeps the shear that it has.

    Attributes:
        clean: share of the samples that pass through unchanged.
        geometry: crop, zoom, rotation, shear, shift, perspective, mirroring.
        color: brightness, contrast, saturation.
        blur: of the lens.
        broadcast: zoom, few pixels, noise, compression.
        erasing: a rectangle of one level.
    """

    clean: Share = 0.0
    geometry: Geometry | None = None
    color: ColorJitter | None = None
    blur: Blur | None = None
    broadcast: Broadcast | None = None
    erasing: RandomErasing | None = None

    @model_validator(mode="before")
    @classmethod
    def _keep_the_recipes_own_settings(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        defaults = {
            name: cls.model_fields[name].default for name in values if name in cls.model_fields
        }
        return {
            name: {**defaults[name].model_dump(), **value}
            if isinstance(value, dict) and isinstance(defaults.get(name), AugmentationOp)
            else value
            for name, value in values.items()
        }

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return float32 [B, 3, H, W] in 0-255 for uint8 [B, 3, H, W]; all draws come from the CPU generator."""
        draws = ParamSampler(len(images), generator)
        clean = draws.chance(self.clean)
        drawn = self._draw(draws, images.shape[3] / images.shape[2])
        at_once = max(1, _PIXELS_AT_ONCE // (images.shape[2] * images.shape[3]))
        if images.device.type != "cpu" or len(images) <= at_once:
            return self._change(images, clean, drawn)
        result = torch.empty(images.shape)
        for start in range(0, len(images), at_once):
            some = slice(start, start + at_once)
            theirs = {
                part: {name: values[some] for name, values in each.items()}
                for part, each in drawn.items()
            }
            result[some] = self._change(images[some], clean[some], theirs)
        return result

    def _draw(self, draws: ParamSampler, aspect: float) -> dict[str, Parameters]:
        drawn = {}
        for name in ("color", "blur", "broadcast", "erasing"):
            part = getattr(self, name)
            if part is not None:
                drawn[name] = part.draw(draws)
        if self.geometry or self.broadcast:
            matrices = (self.geometry or Geometry()).matrices(draws, aspect)
            if self.broadcast:
                matrices = matrices @ zoom_matrices(drawn["broadcast"]["zoom"])
            drawn["geometry"] = {"matrices": matrices}
        return drawn

    def _change(
        self, stored: Tensor, clean: NDArray[np.bool_], drawn: Mapping[str, Parameters]
    ) -> Tensor:
        images = stored.to(torch.float32, copy=True)  # the parts work in place
        if "geometry" in drawn:
            images = resample(images, drawn["geometry"]["matrices"])
        for name in ("color", "blur", "broadcast", "erasing"):
            if name in drawn:
                images = getattr(self, name).apply(images, drawn[name])
        if clean.any():
            places = on_device(np.flatnonzero(clean), images)
            images.index_copy_(0, places, stored.index_select(0, places).float())
        return images

    def cautions(self, classes: Sequence[str]) -> list[str]:
        """Say which settings would turn one digit into another, where the classes are like digits."""
        if self.geometry is None or not any(
            name and set(name) <= set("0123456789") for name in classes
        ):
            return []
        return [f"augmentation.geometry.{caution}" for caution in self.geometry.cautions()]


class LightAugmentation(AugmentationPipeline):
    """Mild enough that a person still reads every number: affine, color, erasing."""

    geometry: Geometry | None = Geometry(rotation=8, translation=0.06, zoom=(0.88, 1.12), shear=6)
    color: ColorJitter | None = ColorJitter(brightness=0.3, contrast=0.3, saturation=0.4)
    erasing: RandomErasing | None = RandomErasing(probability=0.25, area=(0.02, 0.1))


class BroadcastAugmentation(AugmentationPipeline):
    """Small crops from broadcasts: all of the above, perspective, blur, and the broadcast's own degradation."""

    clean: Share = 0.1
    geometry: Geometry | None = Geometry(
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
    blur: Blur | None = Blur(probability=0.2)
    broadcast: Broadcast | None = Broadcast()
    erasing: RandomErasing | None = RandomErasing(probability=0.2, area=(0.02, 0.1))


class PhotoAugmentation(AugmentationPipeline):
    """Photographs, as ImageNet models are trained: crops of a third of the area and more, mirroring, color."""

    geometry: Geometry | None = Geometry(
        rotation=5, crop_area=(0.35, 1), crop_aspect=(0.75, 1.3333), horizontal_flip=0.5
    )
    color: ColorJitter | None = ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, gray=0.05)
    blur: Blur | None = Blur(probability=0.1)
    erasing: RandomErasing | None = RandomErasing(probability=0.1, area=(0.02, 0.2))
