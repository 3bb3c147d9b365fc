import errno
import hashlib
import os
import random
import socket
from pathlib import Path
from typing import Any

import pytest
import torch

from cls_callbacks import (
    AtomicCheckpointIO,
    CheckpointNotSavedError,
    DamagedCheckpointError,
    verify_checkpoint,
)
from cls_callbacks.checkpointing import atomic_io
from cls_callbacks.checkpointing.checkpoint_files import duplicate_checkpoint


def test_atomic_io_rejects_remote_paths() -> None:
    with pytest.raises(ValueError, match="local folders only"):
        AtomicCheckpointIO().save_checkpoint({}, "s3://bucket/last.ckpt")


def test_failed_write_keeps_the_old_file_and_leaves_no_draft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, target)

    def disk_full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr("os.fsync", disk_full)
    with pytest.raises(OSError, match="no space left"):
        AtomicCheckpointIO().save_checkpoint({"step": 2}, target)
    assert torch.load(target, weights_only=True) == {"step": 1}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.ckpt", "last.ckpt.sha256"]
    verify_checkpoint(target)


@pytest.mark.skipif(os.name != "posix", reason="limits the size of files")
@pytest.mark.parametrize("missing", [1, 22, 100, 1_000, 200_000, 3_999_000])
def test_disk_that_is_full_before_the_last_byte_keeps_the_old_file(
    tmp_path: Path, missing: int
) -> None:
    import resource

    target, checkpoint = tmp_path / "last.ckpt", {"weights": torch.ones(1_000_000)}
    AtomicCheckpointIO().save_checkpoint(checkpoint, target)
    size = target.stat().st_size
    before = target.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size - missing, hard))
    try:
        with pytest.raises(CheckpointNotSavedError, match="was not saved: File too large"):
            AtomicCheckpointIO().save_checkpoint(checkpoint, target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert target.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.ckpt", "last.ckpt.sha256"]
    verify_checkpoint(target)


def test_checkpoint_does_not_name_this_computer(tmp_path: Path) -> None:
    target = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"weights": torch.ones(3)}, target)
    assert socket.gethostname().encode() not in target.read_bytes()


@pytest.mark.parametrize("has_open_files", [True, False])
@pytest.mark.parametrize("megabytes", [[3], [0.1, 20, 1.1]])
def test_checksum_of_large_tensors_matches_the_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    megabytes: list[float],
    has_open_files: bool,
) -> None:
    if not has_open_files:  # as on Windows
        monkeypatch.setattr(atomic_io, "_OPEN_FILES", tmp_path / "none")
    target = tmp_path / "last.ckpt"
    tensors = [torch.rand(int(size * 250_000)) for size in megabytes]
    AtomicCheckpointIO().save_checkpoint({"tensors": tensors}, target)
    verify_checkpoint(target)
    saved = torch.load(target, weights_only=True)["tensors"]
    assert all(torch.equal(one, other) for one, other in zip(saved, tensors, strict=True))


@pytest.mark.parametrize("failing_call", [0, 1, 2])
def test_disk_error_that_is_reported_once_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing_call: int
) -> None:
    """An operating system reports an error of a disk to one call, and not to the next."""
    target = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, target)
    fsync, calls = os.fsync, []

    def fail_once(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == failing_call + 1:
            raise OSError(errno.EIO, "input/output error")
        fsync(descriptor)

    monkeypatch.setattr("os.fsync", fail_once)
    with pytest.raises(OSError, match=r"last\.ckpt was not saved: input/output error"):
        AtomicCheckpointIO().save_checkpoint({"all": torch.ones(1_000_000)}, target)
    assert torch.load(target, weights_only=True) == {"step": 1}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.ckpt", "last.ckpt.sha256"]
    verify_checkpoint(target)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "one.ckpt"
    AtomicCheckpointIO().save_checkpoint({"state_dict": {"weight": torch.randn(300)}}, path)
    return path


def test_checkpoint_has_a_checksum_in_sha256sum_format(checkpoint: Path) -> None:
    verify_checkpoint(checkpoint)
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert checkpoint.with_name("one.ckpt.sha256").read_text() == f"{digest}  one.ckpt\n"
    assert sorted(path.name for path in checkpoint.parent.iterdir()) == [
        "one.ckpt",
        "one.ckpt.sha256",
    ]


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(20))
def test_verify_detects_flipped_bits_and_truncation(checkpoint: Path, seed: int) -> None:
    content, draw = bytearray(checkpoint.read_bytes()), random.Random(seed)
    position = draw.randrange(len(content))
    checkpoint.write_bytes(content[:position])
    with pytest.raises(
        DamagedCheckpointError, match=r"one.ckpt: SHA-256 does not match one.ckpt.sha256"
    ):
        verify_checkpoint(checkpoint)
    content[position] ^= 1 << draw.randrange(8)
    checkpoint.write_bytes(content)
    with pytest.raises(DamagedCheckpointError):
        verify_checkpoint(checkpoint)


def test_verify_accepts_a_checkpoint_without_checksum(checkpoint: Path) -> None:
    checkpoint.with_name("one.ckpt.sha256").unlink()
    verify_checkpoint(checkpoint)


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_checkpoint_verifies_when_the_process_dies_between_renames(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    replace, done = os.replace, []

    def dies(source: Any, target: Any) -> None:
        if len(done) == renames:
            raise KeyboardInterrupt
        done.append(replace(source, target))

    monkeypatch.setattr(os, "replace", dies)
    with pytest.raises(KeyboardInterrupt):
        AtomicCheckpointIO().save_checkpoint(
            {"state_dict": {"weight": torch.randn(300)}}, checkpoint
        )
    verify_checkpoint(checkpoint)


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("renames", [0, 1, 2])
def test_both_names_verify_when_the_process_dies_while_duplicating(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, renames: int, links: bool
) -> None:
    second = checkpoint.with_name("two.ckpt")
    AtomicCheckpointIO().save_checkpoint({"state_dict": {}}, second)
    replace, done = os.replace, []

    def dies(source: Any, target: Any) -> None:
        if len(done) == renames:
            raise KeyboardInterrupt
        done.append(replace(source, target))

    def no_links(*args: Any) -> None:
        raise OSError(errno.EPERM, "no links on this file system")

    if not links:
        monkeypatch.setattr(os, "link", no_links)
    monkeypatch.setattr(os, "replace", dies)
    with pytest.raises(KeyboardInterrupt):
        duplicate_checkpoint(checkpoint, second)
    monkeypatch.setattr(os, "replace", replace)
    verify_checkpoint(checkpoint)
    verify_checkpoint(second)
    duplicate_checkpoint(checkpoint, second)
    assert second.read_bytes() == checkpoint.read_bytes()
    assert checkpoint.samefile(second) == links


def test_duplicate_of_a_checkpoint_without_checksum_has_none(checkpoint: Path) -> None:
    second = checkpoint.with_name("two.ckpt")
    AtomicCheckpointIO().save_checkpoint({"state_dict": {}}, second)
    checkpoint.with_name("one.ckpt.sha256").unlink()
    duplicate_checkpoint(checkpoint, second)
    verify_checkpoint(second)
    assert not second.with_name("two.ckpt.sha256").exists()
