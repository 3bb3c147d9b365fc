"""One hash that changes when any row or any image byte does, and not when files or rows are reordered."""

import hashlib
import json
from collections.abc import Mapping, Sequence

from cls_data.annotations import Record
from cls_data.store import ImageStore


def fingerprint(splits: Mapping[str, tuple[Sequence[Record], ImageStore]]) -> str:
    """Return the SHA-256, in hexadecimal, over all splits' rows and the bytes of their images."""
    rows = sorted(
        _row_digest(split, record, image)
        for split, (records, store) in splits.items()
        for record, image in zip(records, store.digests, strict=True)
    )
    return hashlib.sha256(b"".join(rows)).hexdigest()


def _row_digest(split: str, record: Record, image: bytes) -> bytes:
    row = [split, record.id, record.label, record.group, dict(record.metadata), image.hex()]
    return hashlib.sha256(json.dumps(row, sort_keys=True).encode()).digest()
