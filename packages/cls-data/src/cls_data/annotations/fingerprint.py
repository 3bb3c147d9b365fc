"""Fingerprint of a dataset: a hash of all rows and image bytes, independent of their order."""

import hashlib
import json
from collections.abc import Iterable, Mapping

from cls_data.annotations.reading import Record


def compute_fingerprint(splits: Mapping[str, Iterable[tuple[Record, bytes]]]) -> str:
    """Return the hexadecimal SHA-256 of all rows, each given with the digest of its image file."""
    row_digests = []
    for split, rows in splits.items():
        for record, image_digest in rows:
            row_digest = _digest_row(split, record, image_digest)
            row_digests.append(row_digest)

    row_digests.sort()
    content = b"".join(row_digests)
    return hashlib.sha256(content).hexdigest()


def _digest_row(split: str, record: Record, image_digest: bytes) -> bytes:
    row = [
        split,
        record.id,
        record.label,
        record.group,
        dict(record.metadata),
        image_digest.hex(),
    ]
    text = json.dumps(row, sort_keys=True)
    return hashlib.sha256(text.encode()).digest()
