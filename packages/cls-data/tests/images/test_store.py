import hashlib
import io
import json
import os
import pickle
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loguru import logger
from PIL import Image

from cls_data import DataError, ImageStore, Record, read_split
from cls_data.images.parallel import CHUNK_SIZE
from cls_data.images.store import PixelRows
from cls_export.contract.preprocessing import Preprocessing

SIDE = 8


def build(
    root: Path, folder: Path | None = None, split: Any = "train", **changed: Any
) -> ImageStore:
    return ImageStore.build(
        read_split(root, split), changed.pop("preprocessing", PLAIN), folder=folder, **changed
    )


PLAIN = Preprocessing(size=(SIDE, SIDE), mean=(0, 0, 0), std=(1, 1, 1))


def expected(records: Sequence[Record], preprocessing: Preprocessing = PLAIN) -> torch.Tensor:
    rows = [
        preprocessing.resize_image(preprocessing.decode(record.path.read_bytes()))
        for record in records
    ]
    return torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("in_file", [False, True])
def test_stored_rows_equal_the_preprocessing(
    root: Path, preprocessing: Any, tmp_path: Path, in_file: bool
) -> None:
    records = read_split(root, "train")
    store = ImageStore.build(
        records, preprocessing, workers=2, folder=tmp_path / "stores" if in_file else None
    )
    assert (store.pixels.shape, store.pixels.dtype, len(store.pixels)) == (
        (30, 3, 16, 16),
        torch.uint8,
        30,
    )
    for record, row, size, digest in zip(
        records, store.pixels, store.sizes, store.digests, strict=True
    ):
        data = record.path.read_bytes()
        image = preprocessing.decode(data)
        assert np.array_equal(row.permute(1, 2, 0).numpy(), preprocessing.resize_image(image))
        assert tuple(size) == image.size
        assert digest == hashlib.sha256(data).digest()


def test_gather_returns_the_requested_rows(root: Path) -> None:
    store = build(root)
    assert torch.equal(store.rows.gather(torch.tensor([4, 0, 4])), store.pixels[[4, 0, 4]])


@given(
    count=st.integers(1, 9),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    index=st.lists(st.integers(0, 8), max_size=12),
)
def test_rows_of_any_size_are_gathered(
    count: int, height: int, width: int, index: list[int]
) -> None:
    pixels = torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8)
    wanted = torch.tensor([row % count for row in index], dtype=torch.int64)
    assert torch.equal(PixelRows(pixels).gather(wanted), pixels[wanted])


@pytest.mark.parametrize("content", [b"", b"not an image"])
@pytest.mark.parametrize("in_file", [False, True])
def test_a_damaged_image_is_reported_by_row_and_file(
    root: Path, tmp_path: Path, content: bytes, in_file: bool
) -> None:
    (root / "train" / "7.png").write_bytes(content)
    folder = tmp_path / "stores"
    with pytest.raises(
        DataError, match=r"train/annotations.jsonl:8: train/7.png: (.|\n)*Replace these files"
    ):
        build(root, folder if in_file else None, workers=2)
    assert not in_file or files(folder) == []


def test_a_missing_image_is_reported(root: Path, tmp_path: Path) -> None:
    records = read_split(root, "train")
    records[7].path.unlink()
    for folder in (None, tmp_path / "stores"):
        with pytest.raises(
            DataError, match=r"train/annotations.jsonl:8: train/7.png: .*No such file"
        ):
            ImageStore.build(records, PLAIN, folder=folder)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_truncated_image_is_rejected(tmp_path: Path, kind: str, share: float) -> None:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(
        stream, kind
    )
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "cut").write_bytes(
        stream.getvalue()[: int(share * len(stream.getvalue()))]
    )
    (tmp_path / "train" / "rows.jsonl").write_text(json.dumps({"image": "cut", "label": "1"}))
    with pytest.raises(DataError, match="1 image"):
        build(tmp_path)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory, write_set: Any, picture: Any) -> Path:
    """Enough rows to use processes, with an incomplete last chunk."""
    rows = [
        (f"{row}.png", picture(row, (6 + row % 5, 9)), "12"[row % 2])
        for row in range(5 * CHUNK_SIZE + 30)
    ]
    root: Path = write_set(tmp_path_factory.mktemp("many"), {"train": rows})
    return root


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("in_file", [False, True])
def test_pixels_do_not_depend_on_workers_or_destination(
    many: Path, tmp_path: Path, workers: int, in_file: bool
) -> None:
    records = read_split(many, "train")
    store = ImageStore.build(records, PLAIN, workers=workers, folder=tmp_path if in_file else None)
    assert torch.equal(store.pixels, expected(records))
    assert store.sizes[[0, 6]].tolist() == [[6, 9], [7, 9]]
    again = ImageStore.build(records, PLAIN, workers=workers, folder=tmp_path if in_file else None)
    assert torch.equal(store.pixels, again.pixels)
    assert np.array_equal(store.sizes, again.sizes)


def test_an_existing_store_file_is_reused_unchanged(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "stores"
    store = build(root, folder)
    (name,) = files(folder)
    stamp = (folder / name).stat().st_mtime_ns, (folder / name).stat().st_ino
    time.sleep(0.01)
    again = build(root, folder, workers=2)
    assert files(folder) == [name]
    assert ((folder / name).stat().st_mtime_ns, (folder / name).stat().st_ino) == stamp
    assert torch.equal(store.pixels, again.pixels)
    assert np.array_equal(store.sizes, again.sizes)
    assert store.digests == again.digests


class Renamed(Preprocessing):
    @property
    def pixels_id(self) -> str:
        return "another version"


def change_a_byte(root: Path) -> None:
    image = Image.open(root / "train" / "3.png")
    image.putpixel((0, 0), (1, 2, 3))
    image.save(root / "train" / "3.png")


def swap_two_rows(root: Path) -> None:
    lines = (root / "train" / "annotations.jsonl").read_text().splitlines()
    (root / "train" / "annotations.jsonl").write_text("\n".join([lines[1], lines[0], *lines[2:]]))


def drop_a_row(root: Path) -> None:
    lines = (root / "train" / "annotations.jsonl").read_text().splitlines()
    (root / "train" / "annotations.jsonl").write_text("\n".join(lines[:-1]))


@pytest.mark.parametrize(
    ("change", "settings"),
    [
        (change_a_byte, {}),
        (swap_two_rows, {}),
        (drop_a_row, {}),
        (
            None,
            {"preprocessing": Preprocessing(size=(SIDE, SIDE + 1), mean=(0, 0, 0), std=(1, 1, 1))},
        ),
        (
            None,
            {"preprocessing": Preprocessing(size=(SIDE + 1, SIDE), mean=(0, 0, 0), std=(1, 1, 1))},
        ),
        (None, {"preprocessing": Renamed(size=(SIDE, SIDE), mean=(0, 0, 0), std=(1, 1, 1))}),
        (None, {"strict": False}),
        (None, {"split": "valid"}),
    ],
)
def test_changed_pixels_give_another_store_file(
    root: Path, tmp_path: Path, change: Any, settings: dict[str, Any]
) -> None:
    folder = tmp_path / "stores"
    build(root, folder)
    if change is not None:
        change(root)
    store = build(root, folder, **settings)
    records = read_split(root, settings.get("split", "train"))
    assert torch.equal(store.pixels, expected(records, settings.get("preprocessing", PLAIN)))
    assert len(files(folder)) == 2


def test_labels_and_file_names_do_not_affect_the_store_file(root: Path, tmp_path: Path) -> None:
    build(root, tmp_path / "stores")
    text = (
        (root / "train" / "annotations.jsonl").read_text().replace('"suffix": "2"', '"suffix": "7"')
    )
    (root / "train" / "0.png").rename(root / "train" / "first.png")
    (root / "train" / "annotations.jsonl").write_text(text.replace('"0.png"', '"first.png"'))
    build(root, tmp_path / "stores")
    assert len(files(tmp_path / "stores")) == 1


@pytest.fixture(scope="module")
def stored(
    tmp_path_factory: pytest.TempPathFactory, write_set: Any, picture: Any
) -> tuple[Path, Path, bytes]:
    root = write_set(
        tmp_path_factory.mktemp("set"),
        {"train": [(f"{row}.png", picture(row), "1") for row in range(4)]},
    )
    folder = tmp_path_factory.mktemp("stores")
    build(root, folder)
    (file,) = folder.iterdir()
    return root, file, file.read_bytes()


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_damaged_store_file_is_rebuilt(
    stored: tuple[Path, Path, bytes], data: st.DataObject
) -> None:
    root, file, whole = stored
    kind = data.draw(st.sampled_from(["flip", "cut", "append", "zero tail", "other"]))
    place = data.draw(st.integers(0, len(whole) - 1))
    damaged = {
        "flip": whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :],
        "cut": whole[:place],
        "append": whole + whole[-1 - place :],
        "zero tail": whole[:place] + bytes(len(whole) - place),
        "other": b"something else",
    }[kind]
    file.write_bytes(damaged)
    lines: list[str] = []
    sink = logger.add(lines.append, format="{message}")
    try:
        store = build(root, file.parent)
    finally:
        logger.remove(sink)
    assert torch.equal(store.pixels, expected(read_split(root, "train")))
    assert file.read_bytes() == whole
    assert files(file.parent) == [file.name]
    assert [str(file) in line and "decoding the images again" in line for line in lines] == [True]


def test_an_image_that_changes_during_the_build_is_rejected(root: Path, tmp_path: Path) -> None:
    class Meddling(Preprocessing):
        def resize_image(self, image: Image.Image) -> Any:
            with (root / "train" / "9.png").open("ab") as stream:
                stream.write(b"\0")
            return super().resize_image(image)

    with pytest.raises(DataError, match="Image files changed while they were read"):
        build(
            root,
            tmp_path / "stores",
            preprocessing=Meddling(size=(SIDE, SIDE), mean=(0, 0, 0), std=(1, 1, 1)),
        )
    assert files(tmp_path / "stores") == []


def test_writes_to_mapped_pixels_do_not_reach_the_file(root: Path, tmp_path: Path) -> None:
    store = build(root, tmp_path / "stores")
    store.pixels.zero_()
    assert torch.equal(build(root, tmp_path / "stores").pixels, expected(read_split(root, "train")))


def run(script: str, *arguments: object, **settings: Any) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **settings,
    )


def test_pickled_rows_map_the_same_file_in_another_process(root: Path, tmp_path: Path) -> None:
    store = build(root, tmp_path / "stores")
    sent = pickle.dumps(store.rows)
    assert len(sent) < 1000
    (tmp_path / "sent").write_bytes(sent)
    script = """
        import hashlib, pickle, sys
        rows = pickle.load(open(sys.argv[1], "rb"))
        print(hashlib.sha256(rows.pixels.numpy().tobytes()).hexdigest())
        is_linux = sys.platform == "linux"
        print(str(rows.file.path) in open("/proc/self/maps").read() if is_linux else True)
    """
    out, err = run(script, tmp_path / "sent").communicate(timeout=60)
    assert out.split() == [hashlib.sha256(store.pixels.numpy().tobytes()).hexdigest(), "True"], err


def test_rows_in_memory_can_be_pickled(root: Path) -> None:
    rows = build(root).rows
    assert torch.equal(pickle.loads(pickle.dumps(rows)).pixels, rows.pixels)


def test_only_drafts_of_dead_local_processes_are_removed(root: Path, tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    host = socket.gethostname().replace(".", "-")
    abandoned = [f".{'0' * 32}.store.{host}.{gone.pid}.draft"]
    other_files = [
        f".{'0' * 32}.store.{host}.{os.getppid()}.draft",
        f".{'0' * 32}.store.{host}.more.{gone.pid}.draft",  # a name that starts like this host's
        f".{'0' * 32}.store.elsewhere.{gone.pid}.draft",
        f".{'0' * 32}.store.{host}.notes.draft",
        "notes.txt",
    ]
    for name in [*abandoned, *other_files]:
        (tmp_path / "stores").mkdir(exist_ok=True)
        (tmp_path / "stores" / name).write_text("")
    for _ in range(2):  # the store is built, and then reused
        build(root, tmp_path / "stores")
        remaining = [name for name in files(tmp_path / "stores") if not name.endswith(".store")]
        assert remaining == sorted(other_files)
        (tmp_path / "stores" / abandoned[0]).write_text("")


BUILD = """
    import hashlib, os, sys, time
    from typing import ClassVar

    from cls_data import DataError, ImageStore, read_split
    from cls_export.contract.preprocessing import Preprocessing

    root, folder, workers, after, seconds = *sys.argv[1:3], *map(float, sys.argv[3:6])

    class Slow(Preprocessing):
        num_fitted: ClassVar[int] = 0

        def resize_image(self, image):
            Slow.num_fitted += 1
            time.sleep(seconds)
            if Slow.num_fitted == after:
                os.kill(os.getpid(), 9)
            return super().resize_image(image)

    try:
        records = read_split(root, "train")
        slow = Slow(size=(8, 8), mean=(0, 0, 0), std=(1, 1, 1))
        store = ImageStore.build(records, slow, folder=folder, workers=int(workers))
    except DataError as error:
        sys.exit(f"DataError: {error}")
    print(hashlib.sha256(store.pixels.numpy().tobytes()).hexdigest())
"""


def digest(root: Path) -> str:
    return hashlib.sha256(expected(read_split(root, "train")).numpy().tobytes()).hexdigest()


@pytest.mark.faults
@pytest.mark.parametrize("after", [1, CHUNK_SIZE, 2 * CHUNK_SIZE + 1, 5 * CHUNK_SIZE + 30])
def test_a_killed_build_leaves_no_store_file(many: Path, tmp_path: Path, after: int) -> None:
    process = run(BUILD, many, tmp_path, 1, after, 0)
    assert process.communicate(timeout=60)[0] == ""
    assert process.returncode == -9
    (draft,) = files(tmp_path)
    assert draft.startswith(".")
    assert not list(tmp_path.glob("*.store"))
    store = build(many, tmp_path)
    assert torch.equal(store.pixels, expected(read_split(many, "train")))
    (name,) = files(tmp_path)
    assert name.endswith(".store")
    assert not name.startswith(".")


@pytest.mark.faults
@pytest.mark.skipif(sys.platform != "linux", reason="other platforms use threads")
def test_a_build_with_a_killed_worker_raises_and_leaves_no_files(
    many: Path, tmp_path: Path
) -> None:
    process = run(BUILD, many, tmp_path, 2, 200, 0)
    _, err = process.communicate(timeout=60)
    assert "DataError: One of 2 worker processes was killed" in err
    assert files(tmp_path) == []


@pytest.mark.faults
def test_processes_can_build_the_same_file_concurrently(many: Path, tmp_path: Path) -> None:
    processes = [run(BUILD, many, tmp_path, workers, -1, 0.002) for workers in (1, 2, 1)]
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert out.strip() == digest(many), err
    (name,) = files(tmp_path)
    stamp = (tmp_path / name).stat().st_mtime_ns
    assert torch.equal(build(many, tmp_path).pixels, expected(read_split(many, "train")))
    assert (tmp_path / name).stat().st_mtime_ns == stamp


@pytest.mark.faults
@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
@pytest.mark.parametrize("spare", [-10_000, -1, 10])
def test_a_file_size_limit_gives_an_error_with_the_folder(
    many: Path, tmp_path: Path, spare: int
) -> None:
    limited = (
        "import resource, sys\n"
        "sys.dont_write_bytecode = True\n"  # the limit would cut bytecode files short
        "resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0}))\n"
    )
    length = len(read_split(many, "train")) * 3 * SIDE * SIDE
    folder = tmp_path / "stores"
    process = run(limited.format(length + spare) + textwrap.dedent(BUILD), many, folder, 1, -1, 0)
    _, err = process.communicate(timeout=60)
    assert err.startswith(
        f"DataError: {folder}: 0.00 GB of decoded images cannot be written (File too large)"
    )
    assert "Free some space, choose another folder" in err
    assert files(folder) == []


def _may_mount() -> bool:
    command = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.faults
@pytest.mark.skipif(sys.platform != "linux" or not _may_mount(), reason="cannot mount a small disk")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_gives_an_error_with_the_folder(
    many: Path, tmp_path: Path, workers: int
) -> None:
    script = tmp_path / "build.py"
    script.write_text(textwrap.dedent(BUILD))
    folder = tmp_path / "disk"
    folder.mkdir()
    # Space for some chunks and a fraction of the next.
    mount = f"mount -t tmpfs -o size=68k none {folder}"
    command = f"{mount} && {sys.executable} {script} {many} {folder} {workers} -1 0"
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", f"{command}; ls -A {folder}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr.startswith(
        f"DataError: {folder}: 0.00 GB of decoded images cannot be written (No space left"
    )
    assert done.stdout == ""


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root can write anywhere")
def test_a_read_only_folder_gives_an_error_with_its_path(root: Path, tmp_path: Path) -> None:
    (tmp_path / "stores").mkdir(mode=0o500)
    with pytest.raises(DataError, match=r"stores: .* cannot be written"):
        build(root, tmp_path / "stores")


def test_a_file_in_place_of_the_folder_gives_an_error_with_its_path(
    root: Path, tmp_path: Path
) -> None:
    (tmp_path / "stores").write_text("mine")
    with pytest.raises(
        DataError, match=r"stores: .* cannot be written \((File exists|Not a directory)\)"
    ):
        build(root, tmp_path / "stores")
