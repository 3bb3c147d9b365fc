"""Write the files of a snapshot to remote storage, in an order that is safe at any moment.

A machine may die between any two requests, and a run can resume from the files that are there:

1. The last file of a stage is deleted if the stage is not complete anymore, or if the file has
   changed. An outdated best.ckpt is deleted, too.
2. Settings and small files come before the checkpoints that need them.
3. best.ckpt comes before last.ckpt, which contains its score. During a replacement, the .sha256
   file lists the old checksum and the new one. The older last.ckpt becomes previous.ckpt.
4. The last file of each stage comes after all others, in order.
"""

from collections.abc import Callable
from pathlib import PurePosixPath

from cls_callbacks.remote.pull import list_remote_files, parse_checksums
from cls_callbacks.remote.snapshot import (
    BEST,
    LAST,
    MARKERS,
    PREVIOUS,
    Snapshot,
    SnapshotFile,
)
from cls_callbacks.remote.storage import RemoteFolder
from cls_export.contract.run_layout import CHECKPOINTS_FOLDER

_FIRST = ("config.yaml", "labels_mapping.json", "origin.json")
_EPOCHS = f"{CHECKPOINTS_FOLDER}/epoch_*.ckpt"


class Pusher:
    """Push snapshots of one run, and skip files that are unchanged since they were pushed.

    Args:
        folder: The remote folder of the run.
        before_write: Called before each file is written; an exception ends the push.
    """

    def __init__(self, folder: RemoteFolder, before_write: Callable[[], None]) -> None:
        self._folder = folder
        self._before_write = before_write
        self._versions: dict[str, tuple[int, int, int]] = {}
        self._remote_sums: dict[str, list[str]] = {}
        self._is_first = True
        self._remote_names: set[str] = set()
        self.uploaded_bytes = 0
        """Bytes of files that were written, without copies inside the storage."""

    def push(self, snapshot: Snapshot) -> None:
        """Write what has changed.

        Raises:
            RemoteStorageError: The storage cannot be used. Push the same or a newer snapshot later.
        """
        files = snapshot.files
        remote_names = self._read_names()
        if self._is_first:
            self._folder.delete_drafts()
            self._is_first = False

        for marker in reversed(MARKERS):
            is_current = marker in files and self._is_pushed(marker, files[marker])
            if marker in remote_names and not is_current:
                self._delete(marker)
        # It belongs to an attempt that ended before there was a checkpoint to resume from.
        if BEST in remote_names and not remote_names & {LAST, PREVIOUS} and BEST not in files:
            self._delete_checkpoint(BEST)

        checkpoints = [name for name in files if files[name].path.suffix == ".ckpt"]
        others = [name for name in files if name not in checkpoints and name not in MARKERS]
        small = [name for name in others if name in _FIRST or not snapshot.is_full]
        for name in _sort(small):
            self._upload(name, files[name])
        for name in _sort_checkpoints(checkpoints):
            self._upload_checkpoint(name, files)
        for name in _sort(others):
            self._upload(name, files[name])
        for marker in MARKERS:
            if marker in files:
                self._upload(marker, files[marker])

        for name in list(remote_names):
            is_epoch = PurePosixPath(name).match(_EPOCHS)
            if is_epoch and name not in files and LAST in files:
                self._delete_checkpoint(name)

    def _read_names(self) -> set[str]:
        """List the remote files, because somebody may have deleted some."""
        self._remote_names = set(list_remote_files(self._folder))
        for name in list(self._remote_sums):
            if f"{name}.sha256" not in self._remote_names:
                del self._remote_sums[name]
        return self._remote_names

    def _is_pushed(self, name: str, file: SnapshotFile) -> bool:
        is_there = name in self._remote_names
        if file.checksums:
            is_there &= f"{name}.sha256" in self._remote_names
        return is_there and self._versions.get(name) == file.version

    def _upload(self, name: str, file: SnapshotFile) -> None:
        if self._is_pushed(name, file):
            return
        self._before_write()
        self._folder.upload(file.path, name)
        self.uploaded_bytes += file.path.stat().st_size
        self._versions[name] = file.version
        self._remote_names.add(name)

    def _upload_checkpoint(self, name: str, files: dict[str, SnapshotFile]) -> None:
        file = files[name]
        if self._is_pushed(name, file):
            return
        is_present = name in self._remote_names
        before = self._read_sums(name) if is_present else []
        checksums = list(file.checksums)
        is_there = bool(checksums) and before == checksums
        if not is_there:
            if name == LAST and is_present:
                self._copy_checkpoint(LAST, PREVIOUS)
            self._before_write()
            self._write_sums(name, [*checksums, *before])
            twin = self._find_twin(name, file, files)
            if twin is not None:
                self._folder.copy(twin, name)
            else:
                self._folder.upload(file.path, name)
                self.uploaded_bytes += file.path.stat().st_size
            self._write_sums(name, checksums)
        self._versions[name] = file.version
        self._remote_names |= {name, f"{name}.sha256"}

    def _find_twin(
        self, name: str, file: SnapshotFile, files: dict[str, SnapshotFile]
    ) -> str | None:
        """Return an uploaded checkpoint with the same content."""
        for other, candidate in files.items():
            is_pushed = self._is_pushed(other, candidate)
            is_equal = bool(file.checksums) and candidate.checksums == file.checksums
            if other != name and is_pushed and is_equal:
                return other
        return None

    def _copy_checkpoint(self, name: str, new_name: str) -> None:
        self._before_write()
        checksums = self._read_sums(name)
        self._write_sums(new_name, [*checksums, *self._read_sums(new_name)])
        self._folder.copy(name, new_name)
        self._write_sums(new_name, checksums)

    def _read_sums(self, name: str) -> list[str]:
        if name not in self._remote_sums:
            self._remote_sums[name] = parse_checksums(self._folder.read(f"{name}.sha256"))
        return self._remote_sums[name]

    def _write_sums(self, name: str, checksums: list[str]) -> None:
        self._remote_sums.pop(name, None)
        base = PurePosixPath(name).name
        lines = [f"{checksum}  {base}\n" for checksum in dict.fromkeys(checksums)]
        if lines:
            self._folder.write(f"{name}.sha256", "".join(lines).encode())
        else:
            self._folder.delete(f"{name}.sha256")
        self._remote_sums[name] = list(dict.fromkeys(checksums))

    def _delete(self, name: str) -> None:
        self._before_write()
        self._folder.delete(name)
        self._versions.pop(name, None)
        self._remote_names.discard(name)

    def _delete_checkpoint(self, name: str) -> None:
        self._delete(name)
        self._folder.delete(f"{name}.sha256")
        self._remote_sums.pop(name, None)


def _sort(names: list[str]) -> list[str]:
    """Return the settings first: a folder with a config.yaml is the folder of a run."""
    return sorted(names, key=lambda name: (_rank(name), name))


def _rank(name: str) -> int:
    return _FIRST.index(name) if name in _FIRST else len(_FIRST)


def _sort_checkpoints(names: list[str]) -> list[str]:
    order = {BEST: 0, LAST: 2}
    return sorted(names, key=lambda name: (order.get(name, 1), name))
