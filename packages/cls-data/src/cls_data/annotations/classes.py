"""Class indices."""

from collections.abc import Mapping, Sequence

from cls_data.annotations.label_names import LabelHints, quote_label
from cls_data.annotations.reading import Record
from cls_data.errors import DataError


def build_class_to_idx(train: Sequence[Record]) -> dict[str, int]:
    """Number the labels of the training split, sorted as strings: "0" < "00" < "1" < "10"."""
    labels = {record.label for record in train}
    indices: dict[str, int] = {}
    for label in sorted(labels):
        indices[label] = len(indices)
    return indices


def check_labels(records: Sequence[Record], indices: Mapping[str, int]) -> None:
    """Raise a `DataError` if a label does not occur in the training split."""
    findings = []
    hints = LabelHints(indices)
    for record in records:
        if record.label not in indices:
            label = quote_label(record.label)
            findings.append(f"{record.source}: label {label}{hints.suggest(record.label)}")
    if findings:
        raise DataError.from_findings(
            f"{len(findings)} row(s) have a label that no training row has",
            findings,
            "The training split defines the classes. Add training images with these labels, "
            "or remove the rows.",
        )
