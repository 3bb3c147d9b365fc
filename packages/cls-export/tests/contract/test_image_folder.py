"""Rows B6 of images in folders: one walker for every command."""

import os
import socket
from pathlib import Path

import pytest

from cls_export.contract.image_folder import find_images, has_images


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in find_images(folder).images]


@pytest.mark.parametrize(
    "name",
    ["a.jpg", "a.JPG", "a.jpeg", "a.jpe", "a.jfif", "a.PNG", "a.tif", "a.ppm", "a.pgm", "a.b.webp"],
)
def test_files_of_accepted_formats_are_found(tmp_path: Path, name: str) -> None:
    touch(tmp_path / "x" / name)
    assert names(tmp_path) == [f"x/{name}"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("._x.jpg", "hidden"),
        (".DS_Store", "hidden"),
        ("Thumbs.db", ".db"),
        ("x.heic", ".heic"),
        ("x.AVIF", ".avif"),
        ("x.jpg.txt", ".txt"),
        ("README", "without a suffix"),
    ],
)
def test_other_files_are_counted_by_suffix(tmp_path: Path, name: str, kind: str) -> None:
    touch(tmp_path / "sub" / name)
    touch(tmp_path / name)
    touch(tmp_path / "y.png")
    found = find_images(tmp_path)
    assert found.images == (tmp_path / "y.png",)
    assert found.skipped == {kind: 2}
    assert found.describe_skipped() == f"2 {kind}"


def test_folders_named_like_images_are_searched_not_listed(tmp_path: Path) -> None:
    touch(tmp_path / "y.jpg" / "z.png")
    (tmp_path / "empty.png").mkdir()
    assert names(tmp_path) == ["y.jpg/z.png"]


def test_hidden_folders_are_not_searched(tmp_path: Path) -> None:
    touch(tmp_path / ".cache" / "a.png")
    found = find_images(tmp_path)
    assert (found.images, found.skipped) == ((), {"hidden": 1})


def test_only_regular_files_are_images(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "device.png").symlink_to("/dev/zero")
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.png"))
        found = find_images(tmp_path)
    assert found.images == ()
    assert found.skipped == {"device, pipe, or socket": 3, "broken link": 2}
    assert found.describe_skipped() == "3 device, pipe, or socket, 2 broken link"


def test_links_to_files_and_folders_are_followed(tmp_path: Path) -> None:
    touch(tmp_path / "store" / "0123")
    touch(tmp_path / "elsewhere" / "b.png")
    root = tmp_path / "root"
    root.mkdir()
    (root / "a.png").symlink_to(tmp_path / "store" / "0123")
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    assert names(root) == ["a.png", "linked/b.png"]


def test_each_folder_is_searched_once_despite_cycles(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "zyxwvutsr"]
    for folder in folders:
        touch(folder / "1.png")
    for folder in folders:
        for other in folders:
            (folder / f"to_{other.name}").symlink_to(other)
        (folder / "up").symlink_to("..")
    (tmp_path / "a_link").symlink_to("z")
    assert names(tmp_path) == sorted(f"{folder.name}/1.png" for folder in folders)
    num_links = len(folders) * (len(folders) + 1) + 1
    assert find_images(tmp_path).skipped == {"link to a folder that is searched anyway": num_links}


def test_the_order_does_not_depend_on_creation(tmp_path: Path) -> None:
    for name in ("b/1.png", "a.png", "b.png", "a/2.png", "B/3.png", "a/10.png"):
        touch(tmp_path / name)
    expected = ["B/3.png", "a/10.png", "a/2.png", "a.png", "b/1.png", "b.png"]
    assert names(tmp_path) == expected


@pytest.mark.parametrize("name", ["gone", "file.png"])
def test_a_path_that_is_no_folder_is_an_error_that_names_it(tmp_path: Path, name: str) -> None:
    touch(tmp_path / "file.png")
    with pytest.raises(OSError, match=name):
        find_images(tmp_path / name)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([], False),
        (["notes.txt"], False),
        ([".hidden/a.png", "__MACOSX/b.jpg"], False),
        (["notes.txt", "x/y/z.png"], True),
        (["a.jpg", "b.jpg"], True),
    ],
)
def test_has_images_agrees_with_the_search(
    tmp_path: Path, files: list[str], expected: bool
) -> None:
    for name in files:
        touch(tmp_path / name)
    (tmp_path / "empty.png").mkdir()
    assert has_images(tmp_path) == bool(names(tmp_path)) == expected


def test_has_images_ends_with_the_first_image(tmp_path: Path) -> None:
    touch(tmp_path / "a.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "b").symlink_to("missing")
    assert has_images(tmp_path)
    with pytest.raises(FileNotFoundError):
        has_images(tmp_path / "missing")
