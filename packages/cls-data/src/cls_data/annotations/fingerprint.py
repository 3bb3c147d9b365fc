"""One hash that changes when any row or any image byte does, and not when files or rows are reordered."""

import hashlib
import json
from collections.abc import Iterable, Mapping

from cls_data.annotations.reading import Record


def fingerprint(splits: Mapping[str, Iterable[tuple[Record, bytes]]]) -> str:
    """Return the SHA-256, in hexadecimal, over all splits' rows, each with the SHA-256 of its image's bytes."""
    rows = sorted(
        _row_digest(split, record, image)
        for split, rows in splits.items()
        for record, image in rows
    )
    return hashlib.sha256(b"".join(rows)).hexdigest()


def _row_digest(split: str, record: Record, image: bytes) -> bytes:
    row = [split, record.id, record.label, record.group, dict(record.metadata), image.hex()]
    return hashlib.sha256(json.dumps(row, sort_keys=True).encode()).digest()
