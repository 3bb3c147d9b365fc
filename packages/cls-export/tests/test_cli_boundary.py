"""Every mistake at the command line ends in one message and a documented exit code (B6, C10)."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from cls_export import LabelsMapping
from cls_export.cli.arguments import COMMANDS, RESAMPLE_CHOICES, RESIZE_CHOICES
from cls_export.cli.main import main
from cls_export.cli.output import escape_line
from cls_export.contract.preprocessing import Resample, Resize

ESCAPES = "\x1b[31m\x9b2J\u202e\u2066"


def run(*arguments: str, redirect: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    command = f'set -o pipefail; "$0" -m cls_export.cli.main "$@" {redirect}'
    return subprocess.run(
        ["bash", "-c", command, sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONUNBUFFERED": "", **variables},
        timeout=60,
    )


@pytest.fixture
def folder(image_files: list[Path], tmp_path: Path) -> Path:
    """A folder with two images, and what else is found beside images."""
    folder = tmp_path / "crops"
    (folder / "b").mkdir(parents=True)
    shutil.copy(image_files[0], folder / "A.JPG")
    shutil.copy(image_files[1], folder / "b/z.jpeg")
    for name in ("._A.JPG", ".DS_Store", "Thumbs.db", "notes.txt", "b/more.txt", "README"):
        (folder / name).write_bytes(b"\0\5\x16\7")
    (folder / "y.jpg").mkdir()
    (folder / ".cache").mkdir()
    shutil.copy(image_files[2], folder / ".cache/old.jpg")
    (folder / "gone.png").symlink_to("nowhere.png")
    os.mkfifo(folder / "pipe.png")
    return folder


@pytest.mark.parametrize("form", ["table", "jsonl", "csv"])
def test_predict_classifies_the_images_of_a_folder_and_counts_the_rest(
    exported: Path, folder: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(exported), str(folder), "--format", form]) == 0
    output = capsys.readouterr()
    lines = output.out.splitlines()[1 if form == "csv" else 0 :]
    assert len(lines) == 2
    assert "A.JPG" in lines[0]
    assert "z.jpeg" in lines[1]
    assert output.err.count("\n") == 1
    assert "skipped 9 files that are no images: " in output.err
    for kind in ("3 hidden", "2 .txt", "1 .db", "1 broken link", "1 device, pipe, or socket"):
        assert kind in output.err


def test_predict_fails_only_if_an_image_failed(
    exported: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "damaged.png").write_bytes(b"nothing")
    (folder / "empty.jpg").touch()
    assert main(["predict", str(exported), str(folder)]) == 1
    output = capsys.readouterr()
    assert len(output.out.splitlines()) == 2
    assert "2 of 4 images could not be classified" in output.err


def test_given_file_is_classified_whatever_its_name(
    exported: Path, image_files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = tmp_path / ".hidden"
    shutil.copy(image_files[0], odd)
    assert main(["predict", str(exported), str(odd)]) == 0
    assert "hidden" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["gone.jpg", "gone/a.jpg", "link.jpg"])
def test_a_path_that_does_not_exist_is_wrong_input(
    exported: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / "link.jpg").symlink_to("nowhere.jpg")
    assert main(["predict", str(exported), str(folder), str(tmp_path / name)]) == 2
    output = capsys.readouterr()
    assert f"{name}: no such file or folder" in output.err
    assert output.out == ""


@pytest.mark.parametrize(
    ("arguments", "suggestion"),
    [
        (["predict", "b", "a.jpg", "--format", "jsnl"], "did you mean 'jsonl'? Valid names: csv"),
        (["predict", "b", "a.jpg", "--format", "xml"], "csv, jsonl, table"),
        (["migrate", "m", "n", "t", "--golden", "a", "--resize", "squish"], "mean 'squash'?"),
        (["migrate", "m", "n", "t", "--golden", "a", "--resample", "Cubic"], "mean 'bicubic'?"),
    ],
)
def test_misspelled_value_gets_a_suggestion(
    capsys: pytest.CaptureFixture[str], arguments: list[str], suggestion: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert suggestion in capsys.readouterr().err


def test_folder_without_images_tells_what_is_in_it(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.webm").touch()
    assert main(["predict", str(exported), str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "(skipped: 1 .webm; accepted suffixes: " in error


@pytest.mark.parametrize("form", ["table", "jsonl"])
def test_control_characters_do_not_reach_the_terminal(
    exported: Path, image_files: list[Path], tmp_path: Path, form: str
) -> None:
    folder = tmp_path / f"crops{ESCAPES}"
    folder.mkdir()
    shutil.copy(image_files[0], folder / f"good{ESCAPES}\n.jpg")
    (folder / f"bad{ESCAPES}\n.jpg").write_bytes(b"nothing")
    (folder / f"other.{ESCAPES}").touch()
    result = run("predict", str(exported), str(folder), "--format", form)
    assert result.returncode == 1
    assert len(result.stdout.splitlines()) == 1
    assert len(result.stderr.splitlines()) == 3
    for text in (result.stdout, result.stderr):
        assert not set(ESCAPES) - set("[31m2J") & set(text)


@pytest.mark.parametrize("command", [["info"], ["info", "--json"], ["verify"]])
def test_control_characters_of_class_names_do_not_reach_the_terminal(
    exported: Path, tmp_path: Path, command: list[str]
) -> None:
    onnx = pytest.importorskip("onnx")
    from cls_export.contract.bundle_layout import METADATA_KEY

    bundle = Path(shutil.copytree(exported, tmp_path / "bundle"))
    old = LabelsMapping.load(bundle / "labels_mapping.json")
    names = {f"{name}{ESCAPES}": index for name, index in old.class_to_idx.items()}
    labels = LabelsMapping.from_classes(names, old.preprocessing).model_copy(
        update={"schema_version": 2}
    )
    labels.save(bundle / "labels_mapping.json")
    model = onnx.load(bundle / "model.onnx")
    onnx.helper.set_model_props(model, {METADATA_KEY: labels.to_json()})
    onnx.save_model(model, bundle / "model.onnx")

    result = run(*command, str(bundle))
    assert result.returncode == (1 if command == ["verify"] else 0)
    assert not set(ESCAPES) - set("[31m2J") & set(result.stdout + result.stderr)
    if command == ["info", "--json"]:
        assert LabelsMapping.from_json(result.stdout) == labels


def test_escaped_line_has_no_line_break() -> None:
    assert escape_line("a\nb\x1b\r") == r"a\nb\x1b\r"


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_shows_usage_example_and_exit_codes(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"] if command else ["--help"])
    assert caught.value.code == 0
    output = " ".join(capsys.readouterr().out.split())
    assert output.startswith(f"usage: cls-export {command}".strip())
    assert "Example: cls-export" in output
    assert "Exit codes: 0 success, 1 the work failed, 2 wrong input" in output


def test_help_loads_no_heavy_package() -> None:
    code = (
        "import sys\n"
        "from cls_export.cli.main import main\n"
        "try:\n    main(['predict', '--help'])\n"
        "except SystemExit:\n    pass\n"
        "print({'numpy', 'PIL', 'pydantic', 'onnxruntime', 'torch'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.endswith("set()\n")


def test_choices_are_those_of_preprocessing() -> None:
    assert get_args(Resize) == RESIZE_CHOICES
    assert get_args(Resample) == RESAMPLE_CHOICES


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predcit", "bundle"], "there is no command 'predcit'; did you mean 'predict'?"),
        (["predict", "a", "b", "--logitz"], "there is no option '--logitz'; did you mean"),
        (["predict", "a", "b", "--format", "json"], "'json' is not a valid value"),
        (["info", "a", "b"], "unexpected argument 'b'"),
        (["predict", "a", "b", "--top-k", "-1"], "must be a whole number of 1 to"),
        (["predict", "a", "b", "--top-k", "9" * 5000], "must be a whole number of 1 to"),
        (["bench", "a", "--size", "100000", "100000"], "must be a whole number of 1 to 8192"),
        (["bench", "a", "--threads", "1e3"], "must be a whole number of 1 to 1024"),
        (["float16", "a", "b", "--eval-images", "c", "--max-accuracy-drop", "5"], "of 0 to 1"),
        (["float16", "a", "b", "--eval-images", "c", "--max-accuracy-drop=nan"], "of 0 to 1"),
        (["verify"], "the following arguments are required: BUNDLE"),
        ([], "the following arguments are required: COMMAND"),
    ],
)
def test_wrong_argument_is_named(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_bench_refuses_images_that_do_not_fit_into_memory(
    exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = ["--size", "8192", "8192"]
    assert main(["bench", str(exported), "--batch", "1", "4096", *size]) == 2
    assert "--batch 4096 with --size 8192 8192 needs 825 GB" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux only")
@pytest.mark.parametrize(
    "arguments", [["--help"], ["info"], ["info", "--json"], ["verify"], ["predict"]]
)
def test_full_disk_on_standard_output_ends_in_one_message(
    exported: Path, folder: Path, arguments: list[str]
) -> None:
    if arguments != ["--help"]:
        arguments = [*arguments, str(exported)]
    if arguments[0] == "predict":
        arguments.append(str(folder / "A.JPG"))
    result = run(*arguments, redirect="> /dev/full")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == "cls-export: No space left on device"
    assert "Traceback" not in result.stderr


def test_reader_that_stops_early_is_no_error(exported: Path, folder: Path) -> None:
    files = [str(folder / "A.JPG")] * 2000
    result = run("predict", str(exported), *files, "--format", "jsonl", redirect="| head -1")
    assert result.returncode == 0
    assert result.stderr == ""
    assert len(result.stdout.splitlines()) == 1


def test_missing_extra_is_named(exported: Path, tmp_path: Path) -> None:
    """The file onnx.py stands for an installation without `cls-export[torch]`."""
    (tmp_path / "onnx.py").write_text("raise ImportError('no module')")
    result = run(
        "float16",
        str(exported),
        str(tmp_path / "float16"),
        "--eval-images",
        str(write_annotations(tmp_path)),
        PYTHONPATH=str(tmp_path),
    )
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert 'pip install "cls-export[torch]"' in result.stderr


def write_annotations(folder: Path, text: str = '{"image": "a.jpg", "suffix": "23"}') -> Path:
    path = folder / "annotations.jsonl"
    path.write_text(text)
    return path


@pytest.mark.skipif(importlib.util.find_spec("onnx") is None, reason="needs cls-export[torch]")
@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "3", "nothing", "[" * 100_000, '{"image": 3, "suffix": "23"}'],
    ids=["empty", "object", "array", "number", "text", "deep", "image is a number"],
)
def test_malformed_annotations_are_named(
    exported: Path, tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    annotations = write_annotations(tmp_path, text)
    target = tmp_path / "float16"
    command = ["float16", str(exported), str(target), "--eval-images", str(annotations)]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "annotations.jsonl" in error
    assert error.count("\n") == 1
