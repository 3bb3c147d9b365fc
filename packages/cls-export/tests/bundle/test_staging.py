"""A bundle is replaced in one step, also under kills and polling readers."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from cls_export import BundleError, Classifier, LabelsMapping, verify_bundle
from cls_export.bundle import staging
from cls_export.bundle.staging import exchange_folders, staged_bundle, staged_folder
from cls_export.contract.files import draft_path
from cls_export.runtime.bundle_files import REPLACED_SUFFIX

WRITER = """
import shutil, sys
from pathlib import Path
from cls_export import LabelsMapping
from cls_export.bundle import staging

sources, target, times, mode = sys.argv[1:3], Path(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
if mode == "two steps":
    staging.exchange_folders = lambda first, second: False
print("ready", flush=True)
for number in range(times):
    source = Path(sources[number % 2])
    labels = LabelsMapping.load(source / "labels_mapping.json").without_file_hashes()
    with staging.staged_bundle(target, labels) as draft:
        shutil.copytree(source, draft, dirs_exist_ok=True)
"""
"""Writes two bundles alternately."""


@pytest.fixture
def other(current: Path, tmp_path: Path) -> Path:
    """A bundle with the same logits and another model file."""
    folder = Path(shutil.copytree(current, tmp_path / "changed"))
    model = folder / "model.onnx"
    model.write_bytes(model.read_bytes() + b"\x12\x05other")  # the field producer_name
    write(folder, folder, tmp_path / "other")
    return tmp_path / "other"


def write(source: Path, labels_of: Path, target: Path) -> None:
    """Write a bundle with the files of another one."""
    labels = LabelsMapping.load(labels_of / "labels_mapping.json").without_file_hashes()
    with staged_bundle(target, labels) as draft:
        shutil.copytree(source, draft, dirs_exist_ok=True)


@contextmanager
def writing(
    sources: list[Path], target: Path, times: int, mode: str
) -> Iterator[subprocess.Popen[str]]:
    """Start a process that writes bundles; it has ended after the block."""
    command = [sys.executable, "-c", WRITER, *map(str, sources), str(target), str(times), mode]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_bundle_is_written_with_hashes_and_nothing_else(current: Path, tmp_path: Path) -> None:
    write(current, current, tmp_path / "new/bundle")
    assert names(tmp_path / "new") == ["bundle"]
    assert verify_bundle(tmp_path / "new/bundle").has_checked_hash


@pytest.mark.skipif(sys.platform != "linux", reason="renameat2 is a call of Linux")
def test_folders_are_exchanged_in_one_step(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    assert exchange_folders(tmp_path / "a", tmp_path / "b")
    assert (names(tmp_path / "a"), names(tmp_path / "b")) == (["b"], ["a"])
    with pytest.raises(FileNotFoundError):
        exchange_folders(tmp_path / "a", tmp_path / "gone")


@pytest.mark.parametrize("mode", ["exchange", "two steps"])
def test_polling_reader_sees_a_whole_bundle_during_replacements(
    current: Path, other: Path, tmp_path: Path, image_files: list[Path], mode: str
) -> None:
    target = tmp_path / "polled"
    write(current, current, target)
    expected = Classifier(current).logits(image_files[:1])
    known = {Classifier(folder).model_sha256 for folder in (current, other)}

    reads = 0
    seen = set()
    with writing([other, current], target, 150, mode) as writer:
        while writer.poll() is None or reads == 0:
            classifier = Classifier(target, threads=1)
            seen.add(classifier.model_sha256)
            assert np.array_equal(classifier.logits(image_files[:1]), expected)
            if reads % 4 == 0:
                assert verify_bundle(target).passed
            reads += 1

    assert writer.returncode == 0
    assert seen <= known
    assert len(seen) == 2
    assert names(tmp_path).count("polled") == 1
    assert not [name for name in names(tmp_path) if name.startswith(".")]


@pytest.mark.faults
@pytest.mark.parametrize("mode", ["exchange", "two steps"])
def test_killed_export_leaves_a_whole_bundle_and_no_drafts_after_the_next(
    current: Path, other: Path, tmp_path: Path, mode: str, short: bool
) -> None:
    target = tmp_path / "killed"
    write(current, current, target)
    rng = np.random.default_rng(18)
    for _ in range(4 if short else 20):
        with writing([other, current], target, 1000, mode) as writer:
            time.sleep(rng.uniform(0, 0.1))
            writer.kill()
        assert writer.returncode == -signal.SIGKILL
        if mode == "exchange":
            assert verify_bundle(target).passed

    write(current, current, target)
    assert verify_bundle(target).passed
    assert not [name for name in names(tmp_path) if name.startswith(".")]


def dead(path: Path) -> Path:
    """Return the same draft of a process that does not exist."""
    return path.with_name(path.name.replace(f".{os.getpid()}.", ".999999999."))


def test_drafts_of_dead_exports_are_deleted_and_those_of_others_stay(
    current: Path, tmp_path: Path
) -> None:
    target = tmp_path / "bundle"
    stale = dead(draft_path(target))
    shutil.copytree(current, stale)
    unrelated = dead(draft_path(tmp_path / "data.bin"))
    unrelated.touch()
    elsewhere = target.with_name(f".bundle.other-host.{os.getpid()}.draft")
    elsewhere.mkdir()

    write(current, current, target)

    assert set(tmp_path.iterdir()) == {target, unrelated, elsewhere}


def test_bundle_of_an_export_killed_between_two_renames_is_restored(
    current: Path, tmp_path: Path
) -> None:
    target = tmp_path / "bundle"
    replaced = dead(draft_path(target, REPLACED_SUFFIX))
    shutil.copytree(current, replaced)
    with (
        pytest.raises(RuntimeError, match="stop"),
        staged_bundle(target, LabelsMapping.load(current / "labels_mapping.json")),
    ):
        raise RuntimeError("stop")
    assert verify_bundle(target).passed
    assert names(tmp_path) == ["bundle"]


def test_bundles_of_similar_names_are_not_confused(current: Path, tmp_path: Path) -> None:
    replaced = dead(draft_path(tmp_path / "bundle.v2", REPLACED_SUFFIX))
    draft = dead(draft_path(tmp_path / "bundle.v2"))
    replaced.mkdir()
    draft.mkdir()
    write(current, current, tmp_path / "bundle")
    assert set(tmp_path.iterdir()) == {tmp_path / "bundle", replaced, draft}


def test_reader_waits_for_the_second_rename(current: Path, tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    replaced = draft_path(target, REPLACED_SUFFIX)
    shutil.copytree(current, replaced)
    with pytest.raises(BundleError, match="no such bundle"):
        Classifier(target)  # gives up after a while
    code = f"import os, time; time.sleep(0.1); os.rename({str(replaced)!r}, {str(target)!r})"
    with subprocess.Popen([sys.executable, "-c", code]):
        assert Classifier(target).has_checked_hash


def test_failing_export_keeps_the_old_bundle(
    current: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "bundle"
    write(current, current, target)
    before = Classifier(target).model_sha256
    labels = LabelsMapping.load(current / "labels_mapping.json")
    with (
        pytest.raises(BundleError, match=r"model\.onnx: cannot be read"),
        staged_bundle(target, labels),
    ):
        pass  # the block writes nothing
    with monkeypatch.context() as patch:
        patch.setattr(staging, "exchange_folders", lambda first, second: False)
        write(current, current, target)
    assert Classifier(target).model_sha256 == before
    assert names(tmp_path) == ["bundle"]


def test_files_of_file_managers_do_not_prevent_an_export(current: Path, tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    write(current, current, target)
    for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
        (target / name).touch()
    write(current, current, target)
    assert names(target) == ["golden", "labels_mapping.json", "model.onnx"]


def test_link_to_a_bundle_is_followed(current: Path, tmp_path: Path) -> None:
    write(current, current, tmp_path / "real")
    (tmp_path / "link").symlink_to("real")
    write(current, current, tmp_path / "link")
    assert names(tmp_path) == ["link", "real"]
    assert (tmp_path / "link").is_symlink()
    assert verify_bundle(tmp_path / "link").passed


def test_long_and_odd_names_can_be_written(current: Path, tmp_path: Path) -> None:
    for name in ("名" * 80, "a" * 240, "a.b.c", ".hidden"):
        write(current, current, tmp_path / name)
        write(current, current, tmp_path / name)
        assert verify_bundle(tmp_path / name).passed
    assert len(names(tmp_path)) == 4


@pytest.mark.skipif(sys.platform != "linux", reason="/proc refuses new folders")
def test_folder_that_cannot_be_written_is_named_without_the_draft(current: Path) -> None:
    with pytest.raises(OSError, match="/proc/bundle") as caught:
        write(current, current, Path("/proc/bundle"))
    assert ".draft" not in str(caught.value)


def test_bundle_below_a_file_is_refused(current: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for target in ("file", "file/bundle", "file/a/b"):
        with pytest.raises(BundleError, match="file is a file; choose a folder for the bundle"):
            write(current, current, tmp_path / target)


def test_files_that_appear_during_an_export_are_not_replaced(current: Path, tmp_path: Path) -> None:
    target = tmp_path / "new"

    def export_while_somebody_writes() -> None:
        with staged_folder(target) as draft:
            shutil.copytree(current, draft, dirs_exist_ok=True)
            target.mkdir()
            (target / "mine.txt").write_text("mine")

    with pytest.raises(BundleError, match=r"contains 'mine\.txt'"):
        export_while_somebody_writes()
    assert (target / "mine.txt").read_text() == "mine"
