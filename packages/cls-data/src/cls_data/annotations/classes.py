"""Class indices."""

from collections.abc import Mapping, Sequence

from cls_data.annotations.label_names import quote_label, suggest_label
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
    hints: dict[str, str] = {}
    for record in records:
        if record.label not in indices:
            if record.label not in hints:
                hints[record.label] = suggest_label(record.label, indices)
            label = quote_label(record.label)
            findings.append(f"{record.source}: label {label}{hints[record.label]}")
    if findings:
        raise DataError.from_findings(
            f"{len(findings)} row(s) have a label that no training row has",
            findings,
            "The training split defines the classes. Add training images with these labels, "
            "or remove the rows.",
        )
