"""Compute the features of a frozen backbone once, and train the head on them.

Shapes: N rows of the training split, B images in a batch, F features before the head, C classes.
"""

from collections.abc import Iterable
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.dropout import _DropoutNd

from cls_data import ClassificationBatch, evaluation_mode
from cls_models.backbones.heads import find_head_name, get_head

MAX_CACHE_BYTES = 2 * 2**30
"""Default memory limit of a cache: 2 GiB, enough for 262,144 rows of 2,048 features."""


class FeatureCacheError(ValueError):
    """Features cannot be cached. The message gives the reason and what to set instead."""


def check_features_cacheable(backbone: nn.Module, *, augmented: bool, mixed: bool) -> None:
    """Check that each row has the same features in every epoch, and that the head is trained.

    Args:
        backbone: Its frozen parameters have `requires_grad=False`.
        augmented: Whether training images are augmented.
        mixed: Whether training images are mixed with each other.

    Raises:
        FeatureCacheError: The images change, or layers before the head are trained.
    """
    for changes, setting in ((augmented, "augmentation"), (mixed, "mixing")):
        if changes:
            raise FeatureCacheError(
                f"features cannot be cached with {setting}, because images differ in every epoch. "
                f"Set {setting}=none, or train without cache_features"
            )
    head = get_head(backbone)
    head_parameters = set(head.parameters())
    trained = []
    for name, parameter in backbone.named_parameters():
        if parameter.requires_grad and parameter not in head_parameters:
            trained.append(name)
    if trained:
        raise FeatureCacheError(
            f"features cannot be cached while {len(trained)} tensors before the head are trained "
            f"(such as {trained[0]}). Freeze everything but the head, or train without "
            "cache_features"
        )
    if not any(parameter.requires_grad for parameter in head_parameters):
        raise FeatureCacheError("the head is frozen too, so nothing is trained; unfreeze it")


class FeatureCache:
    """The head's input for every row of a split, and the computation of logits from it.

    The backbone runs in evaluation mode: batch norms use their running statistics, and dropout and
    stochastic depth inside it are off. Training without a cache differs unless its frozen part is
    in evaluation mode as well.

    Attributes:
        features: float32 [N, F] on the backbone's device.
        dropout: Rate of a dropout layer directly before the head. Features are taken before it, so
            each step draws a new mask. A `DropoutLinear` head applies its own dropout.
    """

    def __init__(self, features: Tensor, head: nn.Module, dropout: float = 0.0) -> None:
        self.features = features
        self.dropout = dropout
        self._head = head

    @classmethod
    def compute(
        cls,
        backbone: nn.Module,
        batches: Iterable[ClassificationBatch],
        rows: int,
        *,
        max_bytes: int = MAX_CACHE_BYTES,
    ) -> Self:
        """Run the backbone once over a split, in evaluation mode and float32.

        Args:
            backbone: Maps images to logits. A compiled backbone is compiled again for the hooks
                used here.
            batches: Unaugmented model input on the backbone's device, each with its `index`, in
                any order. Rows may repeat.
            rows: N.
            max_bytes: Memory limit of the cache.

        Raises:
            FeatureCacheError: The head does not take [B, F] or is not the last operation, a batch
                has no `index`, a row is missing or outside 0..N-1, or the cache exceeds the limit.
        """
        features: Tensor | None = None
        is_filled = torch.zeros(rows, dtype=torch.bool)
        dropout = 0.0

        with _HeadInputRecorder(backbone) as recorder:
            for batch in batches:
                index = _get_index(batch, rows)
                batch_features = recorder.get_features(batch["images"])
                if features is None:
                    dropout = recorder.get_dropout(batch_features)
                    width = batch_features.shape[1]
                    _check_memory(rows, width, max_bytes)
                    features = batch_features.new_empty(rows, width)
                features[index.to(features.device)] = batch_features
                is_filled[index.cpu()] = True

        if features is None or not is_filled.all():
            raise FeatureCacheError(
                f"{int((~is_filled).sum())} of {rows} rows are missing in the batches; pass every "
                "row of the split at least once, in a single process (with several ranks, each "
                "gets only its share)"
            )
        return cls(features, recorder.head, dropout)

    def __call__(self, index: Tensor) -> Tensor:
        """Return the features [B, F] of rows `index` int64 [B], before dropout."""
        rows = index.to(self.features.device)
        return self.features[rows]

    def logits(self, index: Tensor) -> Tensor:
        """Return the head's logits [B, C] of rows `index` int64 [B]; dropout follows its mode."""
        dropped = functional.dropout(self(index), self.dropout, self._head.training)
        logits: Tensor = self._head(dropped)
        return logits


class _HeadInputRecorder:
    """Record the input of the head, and the outputs of all dropout layers, with forward hooks."""

    def __init__(self, backbone: nn.Module) -> None:
        self._backbone = backbone
        self._head_name = find_head_name(backbone)
        self.head = backbone.get_submodule(self._head_name)
        self._head_calls: list[tuple[Tensor, Tensor]] = []
        self._dropout_calls: list[tuple[_DropoutNd, Tensor]] = []

    def __enter__(self) -> Self:
        self._handles = [self.head.register_forward_hook(self._record_head)]
        for module in self._backbone.modules():
            if isinstance(module, _DropoutNd):
                self._handles.append(module.register_forward_hook(self._record_dropout))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def get_features(self, images: Tensor) -> Tensor:
        """Return the head's input, float32 [B, F]."""
        self._head_calls = []
        self._dropout_calls = []
        # Not inference_mode, because its tensors cannot be saved for the head's backward pass.
        with (
            torch.no_grad(),
            evaluation_mode(self._backbone),
            torch.autocast(images.device.type, enabled=False),
        ):
            logits = self._backbone(images.float())
        description = f"the head {self._head_name} of {type(self._backbone).__name__}"
        if len(self._head_calls) != 1:
            raise FeatureCacheError(
                f"{description} runs {len(self._head_calls)} times per forward pass; a cache needs "
                "it to run once"
            )
        features, head_output = self._head_calls[0]
        if features.ndim != 2:
            raise FeatureCacheError(
                f"{description} takes {list(features.shape)}, but a cache holds one vector [F] per "
                "image; train without cache_features"
            )
        if logits.shape != head_output.shape or not torch.equal(logits, head_output):
            raise FeatureCacheError(
                f"{description} is not the last operation, so its input does not determine the "
                "logits; train without cache_features"
            )
        return features

    def get_dropout(self, features: Tensor) -> float:
        """Return the rate of the dropout layer that returned these features, or 0.

        In evaluation mode, dropout returns its input, so the head's input has the same memory
        address, flattened or not. All outputs are stored until this call, because freed memory
        would be reused.
        """
        layers = []
        for layer, output in self._dropout_calls:
            if output.data_ptr() == features.data_ptr() and layer.p > 0:
                layers.append(layer)

        if len(layers) > 1 or not all(isinstance(layer, nn.Dropout) for layer in layers):
            types = ", ".join(type(layer).__name__ for layer in layers)
            raise FeatureCacheError(
                f"{types} before the head {self._head_name} cannot be applied to cached features; "
                "train without cache_features"
            )
        return layers[0].p if layers else 0.0

    def _record_head(self, _: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self._head_calls.append((inputs[0], output))

    def _record_dropout(self, module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, _DropoutNd)
        self._dropout_calls.append((module, output))


def _get_index(batch: ClassificationBatch, rows: int) -> Tensor:
    index = batch.get("index")
    if index is None:
        raise FeatureCacheError("the batch has no index; the cache needs the row of each image")
    if len(index) and not 0 <= int(index.min()) <= int(index.max()) < rows:
        raise FeatureCacheError(
            f"the batch has rows {int(index.min())} to {int(index.max())}, outside 0..{rows - 1}"
        )
    return index


def _check_memory(rows: int, width: int, max_bytes: int) -> None:
    bytes_per_row = width * torch.float32.itemsize
    needed = rows * bytes_per_row
    if needed > max_bytes:
        raise FeatureCacheError(
            f"caching {rows:,} rows of {width:,} float32 features takes {needed:,} bytes, more "
            f"than the limit of {max_bytes:,}; train without cache_features"
        )
