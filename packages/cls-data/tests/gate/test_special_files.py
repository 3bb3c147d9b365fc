"""Rows C7: a data set with pipes, devices, and huge files gives findings, without waiting."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from cls_data import DataError, ImageStore, check
from cls_data.annotations.reading import scan_split
from cls_data.gate.inspection import inspect_files
from cls_data.gate.report import draw_findings
from cls_export.contract.preprocessing import Preprocessing

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs files of POSIX systems")


@pytest.fixture
def special_files(tmp_path: Path) -> Iterator[dict[str, Path]]:
    """Yield paths in ROOT/train that cannot be read as an image, by kind."""
    folder = tmp_path / "train"
    folder.mkdir()
    names = ("pipe", "device", "socket", "sparse", "folder", "dangling", "loop")
    files = {name: folder / f"{name}.png" for name in names}

    os.mkfifo(files["pipe"])
    files["device"].symlink_to("/dev/zero")
    files["folder"].mkdir()
    files["dangling"].symlink_to("nowhere.png")
    files["loop"].symlink_to("loop.png")
    with files["sparse"].open("wb") as stream:
        stream.truncate(10**10)
    with socket.socket(socket.AF_UNIX) as server:
        current = Path.cwd()
        os.chdir(folder)  # the address of a socket is limited to 108 bytes
        server.bind("socket.png")
        os.chdir(current)
        yield files


def write_rows(root: Path, names: list[str]) -> None:
    rows = [json.dumps({"image": name, "suffix": "1"}) + "\n" for name in names]
    (root / "train" / "rows.jsonl").write_text("".join(rows))


def test_every_special_file_is_named_by_a_finding(
    tmp_path: Path, special_files: dict[str, Path], preprocessing: Preprocessing
) -> None:
    Image.new("RGB", (20, 20)).save(tmp_path / "train" / "good.png")
    names = ["good.png", *(path.name for path in special_files.values())]
    write_rows(tmp_path, names)

    tracemalloc.start()
    report = check(tmp_path, preprocessing)
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()

    findings = [*report.findings["image_files"], *report.findings["damaged_images"]]
    for line, name in enumerate(names[1:], start=2):
        (finding,) = (item for item in findings if item.sources == (f"train/rows.jsonl:{line}",))
        assert name in finding.text
    assert len(findings) == len(special_files)
    assert not report.passed


def test_a_file_that_is_replaced_after_its_row_was_read_is_a_finding(
    tmp_path: Path, special_files: dict[str, Path], preprocessing: Preprocessing
) -> None:
    result = inspect_files(list(special_files.values()), preprocessing, workers=1)
    assert {problem.kind for problem in result.problems.values()} == {"unreadable"}
    assert len(result.problems) == len(special_files)
    for problem in result.problems.values():
        assert problem.reason.startswith("cannot be read (")


@pytest.mark.parametrize("folder", [None, "stores"])
@pytest.mark.parametrize("kind", ["pipe", "device", "sparse"])
def test_the_store_names_a_special_file(
    tmp_path: Path,
    special_files: dict[str, Path],
    preprocessing: Preprocessing,
    kind: str,
    folder: str | None,
) -> None:
    image = tmp_path / "train" / "0.png"
    Image.new("RGB", (20, 20)).save(image)
    write_rows(tmp_path, ["0.png"])
    records = scan_split(tmp_path, "train").records
    image.unlink()
    special_files[kind].rename(image)

    target = None if folder is None else tmp_path / folder
    with pytest.raises(DataError, match=r"train/0.png: .*cannot be read \("):
        ImageStore.build(records, preprocessing, folder=target)


def test_a_contact_sheet_is_drawn_although_an_image_became_a_pipe(
    tmp_path: Path, special_files: dict[str, Path], preprocessing: Preprocessing
) -> None:
    for name in ("0.png", "1.png"):
        Image.new("RGB", (20, 20)).save(tmp_path / "train" / name)
    write_rows(tmp_path, ["0.png", "1.png"])
    report = check(tmp_path, preprocessing)
    (tmp_path / "train" / "0.png").unlink()
    special_files["pipe"].rename(tmp_path / "train" / "0.png")
    sheets = draw_findings(report, tmp_path / "report")
    assert "duplicates_within_split.png" in [path.name for path in sheets]


_UNREADABLE = """
import json, os, sys
from pathlib import Path
from PIL import Image
from cls_data import check
from cls_export.contract.preprocessing import Preprocessing

root = Path(sys.argv[1])
preprocessing = Preprocessing(size=(8, 8), mean=(0, 0, 0), std=(1, 1, 1))
check(root, preprocessing)  # imports everything, while this process may read it
os.setuid(65534)  # root may read every file
report = check(root, preprocessing)
print(json.dumps({rule: [item.text for item in items] for rule, items in report.findings.items()}))
"""


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="changes the user")
def test_a_file_without_read_permission_is_a_finding() -> None:
    with tempfile.TemporaryDirectory() as name:  # other users may not enter tmp_path
        root = Path(name)
        root.chmod(0o755)
        (root / "train").mkdir()
        Image.new("RGB", (20, 20)).save(root / "train" / "0.png")
        (root / "train" / "0.png").chmod(0)
        write_rows(root, ["0.png"])
        command = [sys.executable, "-c", _UNREADABLE, name]
        result = subprocess.run(command, capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stderr
    (text,) = json.loads(result.stdout)["damaged_images"]
    assert "train/0.png: cannot be read (Permission denied)" in text
