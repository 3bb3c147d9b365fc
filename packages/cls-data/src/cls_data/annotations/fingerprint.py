"""Fingerprint of a data set: a hash of all rows and image bytes, independent of their order."""

import hashlib
import json
from collections.abc import Iterable, Mapping

from cls_data.annotations.reading import Record


def compute_fingerprint(splits: Mapping[str, Iterable[tuple[Record, bytes]]]) -> str:
    """Return the hexadecimal SHA-256 of all rows of all splits.

    Args:
        splits: Each split's records, each with the SHA-256 digest of its image file.
    """
    row_digests = []
    for split, rows in splits.items():
        for record, image_digest in rows:
            row_digests.append(_row_digest(split, record, image_digest))
    return hashlib.sha256(b"".join(sorted(row_digests))).hexdigest()


def _row_digest(split: str, record: Record, image_digest: bytes) -> bytes:
    metadata = dict(record.metadata)
    row = [split, record.id, record.label, record.group, metadata, image_digest.hex()]
    return hashlib.sha256(json.dumps(row, sort_keys=True).encode()).digest()
