"""Features of a frozen backbone, computed once: afterwards a step of training does without the backbone.

Shapes: N rows of the training split, B images in a batch, F features before the head, C classes.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.dropout import _DropoutNd

from cls_data import ClassificationBatch
from cls_models.backbones.heads import head_name

LIMIT_BYTES = 2 * 2**30
"""Memory that a cache may take unless told otherwise: 2 GiB, such as 262,144 rows of 2,048 features."""


class FeatureCacheError(ValueError):
    """Features that cannot stand in for the images. The message says why, and what to set instead."""


def check_features_cacheable(backbone: nn.Module, *, augmented: bool, mixed: bool) -> None:
    """Check that a row has the same features in every epoch.

    Args:
        backbone: as it is to be trained, frozen parameters having `requires_grad=False`.
        augmented: training images are augmented.
        mixed: training images are mixed with each other.

    Raises:
        FeatureCacheError: they are, a parameter before the head is trained, or the head is not.
    """
    for changes, setting in ((augmented, "augmentation"), (mixed, "mixing")):
        if changes:
            raise FeatureCacheError(
                f"features cannot be cached with {setting}: every epoch shows other images. "
                f"Set {setting}=none, or train without the cache"
            )
    head = backbone.get_submodule(head_name(backbone))
    own = set(head.parameters())
    trained = [
        name
        for name, value in backbone.named_parameters()
        if value.requires_grad and value not in own
    ]
    if trained:
        raise FeatureCacheError(
            f"features cannot be cached while {len(trained)} tensors before the head are trained (such as "
            f"{trained[0]}): freeze all of the backbone but its head, or train without the cache"
        )
    if not any(parameter.requires_grad for parameter in own):
        raise FeatureCacheError("the head is frozen too, so nothing is trained; unfreeze it")


class FeatureCache:
    """What goes into the head for every row of a split, and the way from there to logits.

    Attributes:
        features: float32 [N, F] on the backbone's device.
        dropout: probability of the dropout layer right before the head; features are from before it, so that each
            step draws anew. A head that drops its own input (`DropoutLinear`) goes on doing so.

    The part before the head is taken as in evaluation: batch norms use their running statistics, and a dropout or a
    stochastic depth further in does nothing. This is not how the same network trains without a cache, unless its
    frozen part is kept in evaluation mode there as well.
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
        limit_bytes: int = LIMIT_BYTES,
    ) -> Self:
        """Run the backbone once over a split, in evaluation mode, in float32; its own mode stays as it was.

        Args:
            backbone: maps images to logits. One that is compiled would be compiled anew for the hooks used here.
            batches: model input on the backbone's device, not augmented, each with its `index`, in any order. A row
                that comes twice counts once.
            rows: N.
            limit_bytes: refuse to hold more than this.

        Raises:
            FeatureCacheError: the head does not take [B, F] or is not the last operation; a batch has no `index`; a
                row is missing or outside 0..N-1; the cache would be too large.
        """
        features: Tensor | None = None
        seen = torch.zeros(rows, dtype=torch.bool)
        dropout = 0.0
        with _Capture(backbone) as capture:
            for batch in batches:
                index = _index(batch, rows)
                found = capture.features(batch["images"])
                if features is None:
                    dropout = capture.dropout(found)
                    _refuse_too_much(rows, found.shape[1], limit_bytes)
                    features = found.new_empty(rows, found.shape[1])
                features[index.to(features.device)] = found
                seen[index.cpu()] = True
        if features is None or not seen.all():
            raise FeatureCacheError(
                f"{int((~seen).sum())} of {rows} rows were not among the batches given; give every row of the "
                "split once, in order (one process alone; each rank of several sees its own share)"
            )
        return cls(features, capture.head, dropout)

    @property
    def nbytes(self) -> int:
        """Memory taken, in bytes."""
        return self.features.nbytes

    def __call__(self, index: Tensor) -> Tensor:
        """Return the features [B, F] of rows `index` int64 [B], from before the head's dropout."""
        return self.features[index.to(self.features.device)]

    def logits(self, index: Tensor) -> Tensor:
        """Return the head's logits [B, C] of rows `index` int64 [B], with dropout if the head is in training mode."""
        logits: Tensor = self._head(
            functional.dropout(self(index), self.dropout, self._head.training)
        )
        return logits


class _Capture:
    """Hooks that see what goes into the head, and which dropouts it went through last."""

    def __init__(self, backbone: nn.Module) -> None:
        self._backbone = backbone
        self._head_name = head_name(backbone)
        self.head = backbone.get_submodule(self._head_name)
        self._calls: list[tuple[Tensor, Tensor]] = []
        self._dropped: list[tuple[_DropoutNd, Tensor]] = []

    def __enter__(self) -> Self:
        self._handles = [self.head.register_forward_hook(self._at_head)]
        dropouts = (part for part in self._backbone.modules() if isinstance(part, _DropoutNd))
        self._handles += [part.register_forward_hook(self._at_dropout) for part in dropouts]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def features(self, images: Tensor) -> Tensor:
        """Return the head's input float32 [B, F]."""
        self._calls, self._dropped = [], []
        # Not inference_mode: the head could not keep such tensors for its backward pass.
        with (
            torch.no_grad(),
            _evaluating(self._backbone),
            torch.autocast(images.device.type, enabled=False),
        ):
            logits = self._backbone(images.float())
        name = f"the head {self._head_name} of this {type(self._backbone).__name__}"
        if len(self._calls) != 1:
            raise FeatureCacheError(
                f"{name} runs {len(self._calls)} times a forward; a cache needs it to run once"
            )
        found, answer = self._calls[0]
        if found.ndim != 2:
            raise FeatureCacheError(
                f"{name} takes {list(found.shape)}, and a cache holds one vector [F] an image; train without the cache"
            )
        if logits.shape != answer.shape or not torch.equal(logits, answer):
            raise FeatureCacheError(
                f"something follows {name}, so its features do not give the logits alone"
            )
        return found

    def dropout(self, features: Tensor) -> float:
        """Return the probability of the dropout whose output these features are; 0 where there is none.

        In evaluation a dropout returns the tensor that it was given, so that the head's input, flattened or not, lies
        in the same memory. All outputs are held until here: freed memory would be given out again.
        """
        before = [
            part
            for part, out in self._dropped
            if out.data_ptr() == features.data_ptr() and part.p > 0
        ]
        if len(before) > 1 or not all(isinstance(part, nn.Dropout) for part in before):
            raise FeatureCacheError(
                f"{', '.join(type(part).__name__ for part in before)} before the head {self._head_name} cannot be "
                "repeated on cached features; train without the cache"
            )
        return before[0].p if before else 0.0

    def _at_head(self, _: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self._calls.append((inputs[0], output))

    def _at_dropout(self, module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, _DropoutNd)
        self._dropped.append((module, output))


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Put every part into evaluation mode, and each back into its own: some may be frozen, and so be in it already."""
    modes = {part: part.training for part in module.modules()}
    try:
        module.eval()
        yield
    finally:
        for part, training in modes.items():
            part.training = training


def _index(batch: ClassificationBatch, rows: int) -> Tensor:
    index = batch.get("index")
    if index is None:
        raise FeatureCacheError(
            "a batch without index: the cache must know which row of the split each image is"
        )
    if len(index) and not 0 <= int(index.min()) <= int(index.max()) < rows:
        raise FeatureCacheError(
            f"a batch holds rows {int(index.min())} to {int(index.max())}, outside 0..{rows - 1}"
        )
    return index


def _refuse_too_much(rows: int, width: int, limit_bytes: int) -> None:
    needed = rows * width * torch.float32.itemsize
    if needed > limit_bytes:
        raise FeatureCacheError(
            f"caching {rows:,} rows of {width:,} float32 features takes {needed:,} bytes, over the limit of "
            f"{limit_bytes:,}; train without the cache"
        )
