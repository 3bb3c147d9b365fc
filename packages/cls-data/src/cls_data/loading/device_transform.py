"""Convert stored batches to model input on their device."""

from collections.abc import Sequence

import torch
from torch import Tensor

from cls_data.augmentation.mixup import MixupCutmix
from cls_data.augmentation.pipelines import Augmentation
from cls_data.images.resize import resize
from cls_data.loading.batches import BatchSeed, ClassificationBatch, StoredBatch
from cls_export.contract.preprocessing import Preprocessing


class DeviceTransform:
    """Augment, normalize, resize, and mix training batches; normalize and resize all others."""

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
        self._scale = torch.from_numpy(scale).view(3, 1, 1)
        self._bias = torch.from_numpy(bias).view(3, 1, 1)

    def transform_training_batch(
        self, batch: StoredBatch, size: tuple[int, int], num_classes: int
    ) -> ClassificationBatch:
        """Augment, normalize, resize to (height, width), and mix a batch that has a seed."""
        batch_seed = BatchSeed(len(batch["images"]), batch["seed"], batch.get("share"))
        (transformed,) = self.transform_training_batches(batch, [batch_seed], size, num_classes)
        return transformed

    def transform_training_batches(
        self,
        rows: StoredBatch,
        batches: Sequence[BatchSeed],
        size: tuple[int, int],
        num_classes: int,
    ) -> list[ClassificationBatch]:
        """Do the same for several batches, whose rows are one behind the other in `rows`.

        The returned batches share memory, and are equal to those of separate calls.
        """
        images = self._augment(rows["images"], batches)
        # Normalize first, while images may be small; resizing is linear.
        images = self._normalize(images.float())
        images = resize(images, size)

        transformed = ClassificationBatch(images=images, labels=rows["labels"], index=rows["index"])
        if self._mixing is not None:
            mixed, targets = self._mixing.mix_batches(images, rows["labels"], num_classes, batches)
            transformed["images"] = mixed
            transformed["targets"] = targets
        return _split(transformed, batches)

    def transform_evaluation_batch(self, batch: StoredBatch) -> ClassificationBatch:
        """Normalize and resize a batch."""
        return ClassificationBatch(
            images=self.transform_images(batch["images"]),
            labels=batch["labels"],
            index=batch["index"],
        )

    def transform_images(self, images: Tensor) -> Tensor:
        """Normalize and resize evaluation images: uint8 [B, 3, h, w] to float32 [B, 3, H, W]."""
        images = self._normalize(images.float())
        return resize(images, self._size)

    def augment_repeatedly(self, images: Tensor, seed: int, repeats: int) -> Tensor:
        """Return images and random augmentations of them: uint8 [repeats + 1, B, 3, h, w]."""
        results = [images]
        for repeat in range(repeats):
            augmented = self._augment(images, [BatchSeed(len(images), seed + repeat)])
            levels = augmented.round()
            results.append(levels.to(torch.uint8))
        return torch.stack(results)

    def label_warnings(self, classes: Sequence[str]) -> list[str]:
        """Return warnings about augmentation settings that can turn one class into another."""
        if self._augmentation is None:
            return []
        return self._augmentation.label_warnings(classes)

    def _augment(self, images: Tensor, batches: Sequence[BatchSeed]) -> Tensor:
        if self._augmentation is None:
            return images
        return self._augmentation.augment_batches(images, batches)

    def _normalize(self, images: Tensor) -> Tensor:
        """Apply `images * scale + bias` in place, the same two operations as the runtime."""
        if self._scale.device != images.device:
            self._scale = self._scale.to(images.device)
            self._bias = self._bias.to(images.device)
        images.mul_(self._scale)
        images.add_(self._bias)
        return images


def _split(rows: ClassificationBatch, batches: Sequence[BatchSeed]) -> list[ClassificationBatch]:
    """Return the batches whose rows are one behind the other, as views."""
    split = []
    start = 0
    for batch in batches:
        stop = start + batch.num_samples
        part = ClassificationBatch(
            images=rows["images"][start:stop],
            labels=rows["labels"][start:stop],
            index=rows["index"][start:stop],
        )
        if "targets" in rows:
            part["targets"] = rows["targets"][start:stop]
        if batch.share is not None:
            part["share"] = batch.share
        split.append(part)
        start = stop
    return split
