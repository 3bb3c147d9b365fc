"""Conversion of stored batches to model input, on the device of the batch."""

from collections.abc import Sequence

import torch
from torch import Tensor

from cls_data.augmentation import Augmentation, MixupCutmix
from cls_data.images.resize import resize
from cls_data.loading.batches import ClassificationBatch, StoredBatch
from cls_export.contract.preprocessing import Preprocessing


class DeviceTransform:
    """Augment, normalize, resize, and mix training batches; normalize and resize all others.

    Args:
        preprocessing: Gives the size and the normalization of model input.
        augmentation: Changes training images; None for no augmentation.
        mixing: Mixes augmented training images with each other; None for no mixing.
    """

    def __init__(
        self,
        preprocessing: Preprocessing,
        augmentation: Augmentation | None,
        mixing: MixupCutmix | None,
    ) -> None:
        self._size = preprocessing.size
        self._augmentation = augmentation
        self._mixing = mixing
        scale, bias = preprocessing.scale_and_bias()
        self._scale = torch.from_numpy(scale)[:, None, None]
        self._bias = torch.from_numpy(bias)[:, None, None]

    def transform_training_batch(
        self, batch: StoredBatch, size: tuple[int, int], num_classes: int
    ) -> ClassificationBatch:
        """Augment, normalize, resize, and mix a batch that has a seed.

        Args:
            batch: The batch.
            size: Height and width of the resulting images.
            num_classes: C, the length of a row of mixed targets.
        """
        seed = batch["seed"]
        images = self._augment(batch["images"], seed)
        # Normalize first, while images may be small; resizing is linear.
        images = resize(self._normalize(images.float()), size)
        transformed = ClassificationBatch(
            images=images, labels=batch["labels"], index=batch["index"]
        )
        if self._mixing is not None:
            transformed["images"], transformed["targets"] = self._mixing(
                images, batch["labels"], num_classes, seed
            )
        return transformed

    def transform_evaluation_batch(self, batch: StoredBatch) -> ClassificationBatch:
        """Normalize and resize a batch."""
        images = self.transform_images(batch["images"])
        return ClassificationBatch(images=images, labels=batch["labels"], index=batch["index"])

    def transform_images(self, images: Tensor) -> Tensor:
        """Normalize and resize images for evaluation: uint8 [B, 3, h, w] to float32 [B, 3, H, W].

        Only training images can have another stored size.
        """
        return resize(self._normalize(images.float()), self._size)

    def preview(self, images: Tensor, seed: int, num_draws: int) -> Tensor:
        """Return images and random augmentations of them: uint8 [num_draws + 1, B, 3, h, w].

        The first slice has the unchanged images.
        """
        draws = [images]
        for draw in range(num_draws):
            augmented = self._augment(images, seed + draw)
            draws.append(augmented.round().to(torch.uint8))
        return torch.stack(draws)

    def label_warnings(self, classes: Sequence[str]) -> Sequence[str]:
        """Return warnings about augmentation settings that can change an image's class."""
        if self._augmentation is None:
            return ()
        return tuple(self._augmentation.label_warnings(classes))

    def _augment(self, images: Tensor, seed: int) -> Tensor:
        return images if self._augmentation is None else self._augmentation(images, seed)

    def _normalize(self, images: Tensor) -> Tensor:
        """Apply `images * scale + bias` in place, the same two operations as the runtime."""
        if self._scale.device != images.device:
            self._scale = self._scale.to(images.device)
            self._bias = self._bias.to(images.device)
        return images.mul_(self._scale).add_(self._bias)
