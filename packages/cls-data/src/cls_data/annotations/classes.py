"""Classes: fixed by the training split alone, and weights that balance them."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from cls_data.annotations.reading import Record
from cls_data.errors import DataError


def class_to_idx(train: Sequence[Record]) -> dict[str, int]:
    """Number the labels of the training split, sorted as strings: "0" < "00" < "1" < "10"."""
    return {name: index for index, name in enumerate(sorted({record.label for record in train}))}


def label_indices(records: Sequence[Record], indices: Mapping[str, int]) -> Tensor:
    """Return the class indices of some records: int64 [N].

    Raises:
        DataError: a label that is no class, that is, one that train never saw.
    """
    unknown = [
        f"{record.source}: label {record.label!r}"
        for record in records
        if record.label not in indices
    ]
    if unknown:
        raise DataError.from_findings(
            f"{len(unknown)} row(s) carry a label that no training row has",
            unknown,
            "Classes come from train alone: add training images of these labels, or remove the rows.",
        )
    return torch.tensor([indices[record.label] for record in records], dtype=torch.int64)


def weights_of(given: Mapping[str, float], indices: Mapping[str, int]) -> Tensor:
    """Return weights that were given by name in index order: float32 [C].

    Raises:
        DataError: a class is missing, or a name is no class; or none weighs anything.
    """
    if wrong := sorted(set(given) ^ set(indices)):
        raise DataError(
            f"sampling_weights must name every class of train and nothing else; missing or unknown: "
            f"{', '.join(map(repr, wrong[:10]))}"
        )
    if not any(given.values()):
        raise DataError("sampling_weights are all 0; at least one class must come up")
    return torch.tensor([given[name] for name in sorted(indices, key=lambda name: indices[name])])


def balancing_weights(labels: Tensor, num_classes: int) -> Tensor:
    """Return weights inversely proportional to class frequency, `N / (C * n_c)`: float32 [C].

    Their mean over the samples is 1, so a weighted loss keeps its scale. A class without a sample gets 0.
    """
    counts = torch.bincount(labels, minlength=num_classes).to(torch.float32)
    weights = len(labels) / (num_classes * counts.clamp(min=1))
    return torch.where(counts > 0, weights, torch.zeros_like(weights))


def effective_number_weights(labels: Tensor, num_classes: int, beta: float) -> Tensor:
    """Return weights inversely proportional to each class's effective number of samples: float32 [C].

    The effective number is `(1 - beta^n) / (1 - beta)` (Cui et al., 2019, arXiv:1901.05555): images of one class repeat
    each other, so the thousandth adds less than the tenth. `beta` = 0 weighs all classes alike, and towards 1 the
    weights become those of `balancing_weights`. Their mean over the samples is 1; a class without a sample gets 0.
    """
    counts = torch.bincount(labels, minlength=num_classes).to(torch.float64)
    weights = (1 - beta) / (1 - beta ** counts.clamp(min=1))
    weights = torch.where(counts > 0, weights, 0.0)
    return (weights * len(labels) / (weights * counts).sum()).float()
