"""Damaged, hostile, and half-copied run folders: one message with the path, and exit code 2."""

import json
import os
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from report_data import MakeRun, make_predictions

from cls_export.contract.run_layout import RunPaths
from cls_report.commands import compare_runs, report

ESTIMATE = {"value": 0.8, "low": 0.7, "high": 0.9}
CONTENT = {
    "evaluation.json": {
        "scored": {"metric": "valid_top1", "value": 0.5, "epoch": 1, "weights": "ema"},
        "onnx": {"max_logit_difference": 1e-6},
    },
    "fit.json": {"fit_seconds": 9.0, "train_images_per_second": 50.0, "warnings": ["a", "b"]},
    "statistics.json": {
        "counts": {"train": {"0": 5, "00": 3, "23": 1, "7": 2}},
        "sizes": {"train": {"width": [1, 2.5, 3], "height": [1, 2, 3]}},
    },
    "data_check.json": {"findings": {"tiny": [{"text": "x"}]}, "config": {"tiny": "warn"}},
    "model_info.json": {
        "image": [32, 32],
        "parameters": 5,
        "trainable": 5,
        "weights_mb": 1.0,
        "flops": 3,
        "latency_ms": 1.0,
        "device": "cpu",
        "threads": 1,
    },
    "origin.json": {"arguments": ["seed=1"], "versions": {"torch": "2"}},
    "degradation.json": {
        "untouched": ESTIMATE,
        "curves": {"Blur": {"unit": "px", "levels": [1, 2], "top1": [ESTIMATE, ESTIMATE]}},
    },
}
METRICS = "epoch,step,lr,train_loss,valid_loss\n0,3,0.1,2.0,1.5\n1,6,0.05,nan,\n"
FILES = (
    *CONTENT,
    "config.yaml",
    "labels_mapping.json",
    "metrics.csv",
    "predictions/valid.npz",
    "predictions/gradcam_valid.npz",
)


@pytest.fixture
def run(make_run: MakeRun) -> Path:
    """Write a run folder with every file that a report reads."""
    folder = make_run("run", predictions=make_predictions(images=5)).path
    for name, content in CONTENT.items():
        (folder / name).write_text(json.dumps(content))
    (folder / "metrics.csv").write_text(METRICS)
    ids = np.array(["valid/000.png", "valid/001.png"])
    maps = np.zeros((2, 4, 4), np.uint8)
    np.savez(folder / "predictions/gradcam_valid.npz", ids=ids, maps=maps)
    return folder


def expect_one_message(
    run: Path, capsys: pytest.CaptureFixture[str], file: str, codes: tuple[int, ...] = (2,)
) -> str:
    """Write the report of a damaged run, and check its exit code and its message."""
    capsys.readouterr()
    code = report([str(run)])
    message = capsys.readouterr().err
    assert code in codes, message
    assert message.count("\n") <= 1
    assert code == 0 or str(run / file) in message
    return message


def test_the_undamaged_run_has_a_report(run: Path) -> None:
    assert report([str(run)]) == 0


def nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


ALIAS_BOMB = b"a0: &a0 [x, x]\n" + b"".join(
    b"a%d: &a%d [*a%d, *a%d]\n" % (level, level, level - 1, level - 1) for level in range(1, 60)
)
DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "truncated": lambda content: content[: len(content) // 2],
    "binary": lambda content: bytes(range(256)) * 4,
    "not UTF-8": lambda content: b'"\xff\xfe"',
    "UTF-16": lambda content: "{}".encode("utf-16"),
    "nested": lambda content: nested(100_000),
    "nested a little": lambda content: nested(900),
    "alias bomb": lambda content: ALIAS_BOMB,
    "number": lambda content: b"1",
    "null": lambda content: b"null",
    "list": lambda content: b"[1, 2]",
    "long number": lambda content: b'{"seed": ' + b"9" * 10_000 + b"}",
    "zeros": lambda content: bytes(1000),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_file_is_named(
    run: Path, capsys: pytest.CaptureFixture[str], file: str, damage: str
) -> None:
    content = (run / file).read_bytes()
    (run / file).write_bytes(DAMAGE[damage](content))
    expect_one_message(run, capsys, file)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "dangling link"])
@pytest.mark.parametrize("file", FILES)
def test_a_file_that_is_no_regular_file_is_named(
    run: Path, capsys: pytest.CaptureFixture[str], file: str, kind: str
) -> None:
    path = run / file
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("nothing")
    assert "cannot be read" in expect_one_message(run, capsys, file)


@pytest.mark.parametrize("file", FILES)
def test_a_huge_file_is_refused_before_memory_is_taken(
    run: Path, capsys: pytest.CaptureFixture[str], file: str
) -> None:
    report([str(run)])  # imports what it needs
    os.truncate(run / file, 10**13)
    tracemalloc.start()
    assert "larger than" in expect_one_message(run, capsys, file)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 30_000_000


@pytest.mark.parametrize("text", ["step,loss\n0,1\n", "epoch,loss\n0,1", "epoch", "\n"])
def test_metrics_without_epochs_or_an_end_are_named(
    run: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    (run / "metrics.csv").write_text(text)
    assert "metrics.csv:1: damaged (" in expect_one_message(run, capsys, "metrics.csv")


@pytest.mark.parametrize(
    ("file", "text", "problem"),
    [
        ("metrics.csv", "epoch\n" + "0\n" * 200_000, "more than 100,000 epochs"),
        ("fit.json", f'{{"x": [{"1," * 2_000_001}1]}}', "more than 2,000,000 values"),
    ],
)
def test_a_file_of_too_many_values_is_refused_before_memory_is_taken(
    run: Path, capsys: pytest.CaptureFixture[str], file: str, text: str, problem: str
) -> None:
    (run / file).write_text(text)
    assert problem in expect_one_message(run, capsys, file)


def replaced(content: object, path: tuple[object, ...], value: object) -> object:
    """Return JSON content with the value at a path replaced."""
    if not path:
        return value
    key, *rest = path
    if isinstance(content, dict):
        return {**content, key: replaced(content[key], tuple(rest), value)}
    assert isinstance(content, list)
    changed = list(content)
    assert isinstance(key, int)
    changed[key] = replaced(content[key], tuple(rest), value)
    return changed


def find_paths(content: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """Return the path of every value in JSON content."""
    paths = [path]
    if isinstance(content, dict):
        for key, value in content.items():
            paths += find_paths(value, (*path, key))
    if isinstance(content, list):
        for index, value in enumerate(content):
            paths += find_paths(value, (*path, index))
    return paths


VALUES = (None, True, -1, 10**30, 1e308, float("nan"), float("inf"), "", "x", [], {}, [[1]], "\x1b")
JSON_CASES = [
    (file, path, value)
    for file, content in CONTENT.items()
    for path in find_paths(content)
    for value in VALUES
]


@pytest.mark.slow
@pytest.mark.parametrize("file", CONTENT)
def test_every_value_of_a_wrong_type_is_named_or_harmless(
    run: Path, capsys: pytest.CaptureFixture[str], file: str
) -> None:
    for case_file, path, value in JSON_CASES:
        if case_file == file:
            changed = replaced(CONTENT[file], path, value)
            (run / file).write_text(json.dumps(changed))
            expect_one_message(run, capsys, file, codes=(0, 2))


@pytest.mark.parametrize(
    "text",
    [
        "epoch,loss\n0,1,2\n",
        "epoch,loss\n0\n",
        "epoch,loss\n0,x\n",
        "epoch,loss\n,1\n",
        "epoch,loss\nnan,1\n",
        "epoch,loss\n1e300,1\n",
        "epoch,loss\n-1,1\n",
        'epoch,loss\n"0,1\n',
        "epoch,loss\n0," + "9" * 200_000 + "\n",
        "epoch,loss\n0,1\x00\n",
    ],
)
def test_a_row_of_metrics_that_is_wrong_is_named_with_its_line(
    run: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    (run / "metrics.csv").write_text(text)
    assert "metrics.csv:2: damaged (" in expect_one_message(run, capsys, "metrics.csv")


@pytest.mark.parametrize(
    "text",
    [
        "data: !!bool x",
        "data: !!timestamp x",
        "data: !!python/object/apply:os.system ['true']",
        "data: 2024-99-99",
        "? [a]\n: b",
        "data: {root: 1}\nmodel: {}",
        "data: {root: x}",
        "data: {root: x, fold: a}\nmodel: {}",
        "data: {root: x, folds: 100000000000}\nmodel: {}",
        "seed: -1\ndata: {root: x}\nmodel: {}",
        "data: *x",
        "data: {root: x\x07}\nmodel: {}",
    ],
)
def test_settings_that_cannot_be_used_are_named(
    run: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    (run / "config.yaml").write_text(text)
    expect_one_message(run, capsys, "config.yaml")
    assert compare_runs([str(run), str(run)]) == 2
    assert str(run / "config.yaml") in capsys.readouterr().err


def test_odd_settings_can_be_compared(make_run: MakeRun) -> None:
    first = make_run("a").path
    second = make_run("b", 2).path
    text = (first / "config.yaml").read_text()
    extra = f"big: 0x{'f' * 9000}\ndate: 2024-01-01\nset: !!set {{a, b}}\n1: {{2: 3, x: .nan}}\n"
    (first / "config.yaml").write_text(text + extra)
    page = first / "comparison.html"
    assert compare_runs([str(first), str(second), "--html", str(page)]) == 0
    assert page.is_file()


@given(file=st.sampled_from(FILES), position=st.integers(0, 2**32 - 1), flip=st.integers(1, 255))
@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_changed_byte_of_any_file_is_named_or_harmless(
    run: Path, capsys: pytest.CaptureFixture[str], file: str, position: int, flip: int
) -> None:
    copy = run.with_name("copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(run, copy)
    content = bytearray((copy / file).read_bytes())
    content[position % len(content)] ^= flip
    (copy / file).write_bytes(content)
    expect_one_message(copy, capsys, file, codes=(0, 2))


@pytest.mark.parametrize(
    ("ids", "maps"),
    [
        (np.array(["a"]), np.zeros((2, 4, 4), np.uint8)),
        (np.array(["a"]), np.zeros((1, 4), np.uint8)),
        (np.array(["a"]), np.zeros((1, 0, 4), np.uint8)),
        (np.array([1]), np.zeros((1, 4, 4), np.uint8)),
        (np.array(["a"]), np.zeros((1, 4, 4), np.float32)),
    ],
)
def test_heat_maps_that_do_not_match_are_named(
    run: Path, capsys: pytest.CaptureFixture[str], ids: np.ndarray, maps: np.ndarray
) -> None:
    file = "predictions/gradcam_valid.npz"
    np.savez(run / file, ids=ids, maps=maps)
    expect_one_message(run, capsys, file)


@pytest.mark.parametrize(
    ("file", "advice"),
    [
        ("predictions/valid.npz", "write it again with"),
        ("predictions/gradcam_valid.npz", "delete it to write the report without Grad-CAM"),
        ("metrics.csv", ":1: damaged (no column epoch); delete the file to write the report"),
    ],
)
def test_message_about_an_empty_file_tells_what_to_do(
    run: Path, capsys: pytest.CaptureFixture[str], file: str, advice: str
) -> None:
    (run / file).write_bytes(b"")
    assert advice in expect_one_message(run, capsys, file)


def test_predictions_of_other_classes_are_refused(make_run: MakeRun) -> None:
    first, second = make_run("a"), make_run("b")
    mapping = json.loads(first.paths.labels.read_text())
    mapping["class_to_idx"] = {"x": 0, "00": 1, "23": 2, "7": 3}
    labels = type(first.labels).from_classes(mapping["class_to_idx"], first.labels.preprocessing)
    labels.save(second.paths.labels)
    assert report([str(second.path)]) == 2


def test_thumbnails_do_not_leave_the_data_root(make_run: MakeRun) -> None:
    run = make_run("a")
    secret = RunPaths(run.path).path / "secret.png"
    shutil.copy(run.data_root / "valid/000.png", secret)
    from cls_report.page.thumbnails import Thumbnails

    thumbnails = Thumbnails(run.data_root, run.labels.preprocessing)
    assert thumbnails.add("valid/000.png") == 0
    for name in (str(secret), f"../runs/a/{secret.name}", "a\0b", "\ud800", "x" * 5000):
        assert thumbnails.add(name) == -1
