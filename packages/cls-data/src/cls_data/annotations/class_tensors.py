"""Class indices of rows and class-balancing weights, as tensors."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from cls_data.annotations.classes import check_labels
from cls_data.annotations.reading import Record
from cls_data.errors import DataError

_MAX_NAMES = 10
"""Class names that one error message lists."""


def encode_labels(records: Sequence[Record], indices: Mapping[str, int]) -> Tensor:
    """Return the class index of each record: int64 [N].

    Raises:
        DataError: A label does not occur in the training split.
    """
    check_labels(records, indices)
    return torch.tensor([indices[record.label] for record in records], dtype=torch.int64)


def sampling_weights_tensor(given: Mapping[str, float], indices: Mapping[str, int]) -> Tensor:
    """Return sampling weights, given by class name, in index order: float32 [C].

    Raises:
        DataError: A class has no weight, a name is not a class, or all weights are 0.
    """
    mismatched = sorted(set(given) ^ set(indices))
    if mismatched:
        names = ", ".join(map(repr, mismatched[:_MAX_NAMES]))
        raise DataError(
            "sampling_weights must name every class of the training split and nothing else. "
            f"Missing or unknown: {names}"
        )

    if not any(given.values()):
        raise DataError("sampling_weights are all 0; give at least one class a positive weight")

    weights = torch.zeros(len(indices))
    for name, index in indices.items():
        weights[index] = given[name]
    return weights


def balancing_weights(labels: Tensor, num_classes: int) -> Tensor:
    """Return weights inversely proportional to class frequency, `N / (C * n_c)`: float32 [C].

    Their mean over the samples is 1, so a weighted loss keeps its scale. A class without samples
    gets 0.
    """
    counts = torch.bincount(labels, minlength=num_classes)
    counts = counts.to(torch.float32)
    nonzero_counts = counts.clamp(min=1)
    weights = len(labels) / (num_classes * nonzero_counts)
    zeros = torch.zeros_like(weights)
    return torch.where(counts > 0, weights, zeros)


def effective_number_weights(labels: Tensor, num_classes: int, beta: float) -> Tensor:
    """Return weights inversely proportional to the effective number of samples: float32 [C].

    The effective number is `(1 - beta^n) / (1 - beta)` (Cui et al., 2019, arXiv:1901.05555).
    With `beta` = 0 all classes weigh the same; as `beta` approaches 1 the weights approach
    `balancing_weights`. Their mean over the samples is 1; a class without samples gets 0.
    """
    counts = torch.bincount(labels, minlength=num_classes)
    counts = counts.to(torch.float64)
    nonzero_counts = counts.clamp(min=1)
    weights = (1 - beta) / (1 - beta**nonzero_counts)
    weights = torch.where(counts > 0, weights, 0.0)
    total = (weights * counts).sum()
    weights = weights * len(labels) / total
    return weights.float()
