"""Records of pushes: remote.json in the run folder, and in its remote copy."""

import json
import uuid
from dataclasses import asdict, dataclass, field
from typing import Any

from cls_callbacks.remote.storage import RemoteFolder
from cls_export.contract.files import write_atomically
from cls_export.contract.run_layout import RunPaths

RECORD = "remote.json"

NO_PUSH = ""
"""The push of a remote run whose first push is not complete."""

_MAX_PUSHES = 20


@dataclass(frozen=True, slots=True)
class RemoteRecord:
    """The remote file, written at the end of each push, and at the start of the first one.

    Attributes:
        run: Random text that identifies the run, whatever its name.
        push: Random text that identifies the push.
        step: Optimizer steps of last.ckpt.
        stages: The number of completed stages.
    """

    run: str
    push: str
    step: int
    stages: int

    @classmethod
    def read(cls, folder: RemoteFolder) -> "RemoteRecord | None":
        """Read the file; None if it does not exist or is damaged."""
        record: RemoteRecord | None = _parse(cls, folder.read(RECORD))
        return record

    def write(self, folder: RemoteFolder) -> None:
        """Write the file."""
        folder.write(RECORD, _format(self))


@dataclass(frozen=True, slots=True)
class LocalRecord:
    """The file in the run folder.

    Attributes:
        run: See `RemoteRecord`.
        pushes: Pushes that the folder contains: its files are those of a push, or newer. The last
            push may be unfinished, because it is recorded before it starts.
        is_pulling: Whether files are being fetched, so that the folder may mix two states.
    """

    run: str = field(default_factory=lambda: uuid.uuid4().hex)
    pushes: tuple[str, ...] = ()
    is_pulling: bool = False

    @classmethod
    def read(cls, run: RunPaths) -> "LocalRecord | None":
        """Read the file; None if it does not exist or is damaged."""
        try:
            content = run.remote.read_bytes()
        except FileNotFoundError:
            return None
        record: LocalRecord | None = _parse(cls, content)
        return record

    def write(self, run: RunPaths) -> None:
        """Write the file."""
        write_atomically(run.remote, _format(self))

    def with_push(self, push: str) -> "LocalRecord":
        """Add a push."""
        pushes = [*self.pushes, push][-_MAX_PUSHES:]
        return LocalRecord(self.run, tuple(pushes))


def _format(record: RemoteRecord | LocalRecord) -> bytes:
    return json.dumps(asdict(record), indent=2).encode() + b"\n"


def _parse(record_class: Any, content: bytes | None) -> Any:
    try:
        values = json.loads(content or b"")
        if "pushes" in values:
            values["pushes"] = tuple(values["pushes"])
        return record_class(**values)
    except (TypeError, ValueError):
        return None
