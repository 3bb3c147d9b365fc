"""Sizes are compared before memory is taken, and only regular files are read (rows C4, C7)."""

import json
import os
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cls_export import BundleError, Classifier, LabelsMapping, verify_bundle
from cls_export.bundle.golden import MAX_TOLERANCE
from cls_export.contract.bundle_layout import MAX_JSON_VALUES

FILES = ("model.onnx", "labels_mapping.json", "golden/golden.json", "golden/000.png")
PEAK_BYTES = 400_000_000


def use_bundle(bundle: Path) -> str:
    """Verify a bundle; return the text that says what is wrong with it."""
    try:
        return "\n".join(verify_bundle(bundle).failures)
    except BundleError as error:
        return str(error)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ["pipe", "device", "link to a pipe", "folder", "missing"])
def test_file_that_is_not_regular_is_named(bundle: Path, name: str, kind: str) -> None:
    path = bundle / name
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "link to a pipe":
        os.mkfifo(bundle.parent / "pipe")
        path.symlink_to(bundle.parent / "pipe")
    elif kind == "folder":
        path.mkdir()
    message = use_bundle(bundle)
    assert Path(name).name in message
    reasons = ("not a regular file", "Is a directory", "No such file", "is missing")
    assert any(reason in message for reason in reasons), message


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_bundle_that_is_no_folder_is_named(tmp_path: Path, kind: str) -> None:
    path = Path("/dev/zero")
    if kind == "pipe":
        path = tmp_path / "bundle"
        os.mkfifo(path)
    with pytest.raises(BundleError, match=r"cannot be read \(not a regular file\)"):
        Classifier(path)


@pytest.mark.parametrize("name", FILES)
def test_file_of_ten_gigabytes_is_refused_unread(bundle: Path, name: str) -> None:
    with (bundle / name).open("ab") as stream:
        stream.truncate(10 * 2**30)  # without taking space on the disk
    tracemalloc.start()
    message = use_bundle(bundle)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert Path(name).name in message
    assert "larger than" in message
    assert peak < PEAK_BYTES


@pytest.mark.parametrize("name", FILES)
def test_links_to_regular_files_are_followed(bundle: Path, tmp_path: Path, name: str) -> None:
    """Model stores keep each file once, and link it into folders."""
    blob = tmp_path / "blob"
    shutil.move(bundle / name, blob)
    (bundle / name).symlink_to(blob)
    assert verify_bundle(bundle).passed


def test_message_does_not_quote_a_linked_file(bundle: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("password: 1234")
    for name in ("labels_mapping.json", "golden/golden.json"):
        (bundle / name).rename(bundle / f"{name}.bak")
        (bundle / name).symlink_to(secret)
        assert "password" not in use_bundle(bundle)
        (bundle / f"{name}.bak").rename(bundle / name)


def with_keys(**changes: Any) -> Callable[[dict[str, Any]], str]:
    return lambda mapping: json.dumps({**mapping, **changes})


HOSTILE_MAPPINGS: dict[str, Callable[[dict[str, Any]], str]] = {
    "num_classes of 100 million": with_keys(num_classes=100_000_000),
    "num_classes of 400 digits": with_keys(num_classes=10**400),
    "negative num_classes": with_keys(num_classes=-1),
    "no class": with_keys(num_classes=0, class_to_idx={}, idx_to_class={}),
    "index of 100 million": with_keys(class_to_idx={"": 0, "0": 1, "00": 2, "23": 10**8}),
    "long array": with_keys(calibration={"method": "vector", "scale": [0] * 700_000}),
    "many wrong values": with_keys(class_to_idx={str(index): "" for index in range(600_000)}),
    "many unknown keys": lambda mapping: json.dumps({str(index): 0 for index in range(600_000)}),
    "some unknown keys": lambda mapping: json.dumps({str(index): 0 for index in range(20_000)}),
    "long key": with_keys(**{"k" * 1_000_000: 1}),
    "deep arrays": lambda mapping: "[" * 1_000_000,
    "deep objects": lambda mapping: '{"a":' * 100_000 + "1" + "}" * 100_000,
    "deep value": with_keys(preprocessing=json.loads("[" * 500 + "]" * 500)),
    "not an object": lambda mapping: "[]",
    "empty file": lambda mapping: "",
    "wrong encoding": lambda mapping: "\ufeff",
    "NaN": lambda mapping: json.dumps(mapping).replace("0.5", "NaN"),
    "infinity": lambda mapping: json.dumps(mapping).replace("0.5", "1e999"),
    "hash of another form": with_keys(labels_sha256="x" * 1_000_000),
}


@pytest.mark.parametrize("text", HOSTILE_MAPPINGS.values(), ids=HOSTILE_MAPPINGS)
def test_hostile_mapping_ends_in_one_short_message(
    bundle: Path, text: Callable[[dict[str, Any]], str]
) -> None:
    path = bundle / "labels_mapping.json"
    content = text(json.loads(path.read_bytes())).encode()
    path.write_bytes(content)

    tracemalloc.start()
    with pytest.raises(BundleError, match=r"labels_mapping\.json") as caught:
        Classifier(bundle)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(str(caught.value)) < 3000
    assert peak < PEAK_BYTES

    if b"num_classes" in content:
        with pytest.raises(BundleError, match="labels mapping"):
            LabelsMapping.from_legacy(content, size=(12, 10))


def golden_with(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda golden: {**golden, **changes}


def case_with(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda golden: {**golden, "cases": [{**golden["cases"][0], **changes}]}


HOSTILE_GOLDEN_SETS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "infinite logits": case_with(logits=[float("inf")] * 4),
    "logits that are no number": case_with(logits=[float("nan")] * 4),
    "logits over float32": case_with(logits=[1e39, 0, 0, 0]),
    "too few logits": case_with(logits=[1.0]),
    "too many logits": case_with(logits=[1.0] * 5),
    "no logits": case_with(logits=[]),
    "many logits": case_with(logits=[1.0] * (MAX_JSON_VALUES + 2)),
    "many wrong logits": case_with(logits=["x"] * 300_000),
    "many cases": lambda golden: {"cases": [{}] * (MAX_JSON_VALUES + 2)},
    "many wrong cases": lambda golden: {"cases": [{}] * 300_000},
    "infinite tolerance": golden_with(tolerance=float("inf")),
    "huge tolerance": golden_with(tolerance=1e9),
    "tolerance that accepts everything": golden_with(tolerance=1.0),
    "tolerance over the limit": golden_with(tolerance=MAX_TOLERANCE * 1.01),
    "tolerance of zero": golden_with(tolerance=0),
    "negative tolerance": golden_with(tolerance=-1e-4),
    "tolerance that is no number": golden_with(tolerance=float("nan")),
    "no case": golden_with(cases=[]),
    "file out of the folder": case_with(file="../../secret"),
    "file that is the folder": case_with(file=".."),
    "file with a null character": case_with(file="a\0b"),
    "unknown class": case_with(label="99"),
    "hash of another form": case_with(file_sha256="x"),
}


@pytest.mark.parametrize("change", HOSTILE_GOLDEN_SETS.values(), ids=HOSTILE_GOLDEN_SETS)
def test_hostile_golden_set_does_not_pass(
    bundle: Path, change: Callable[[dict[str, Any]], Any]
) -> None:
    path = bundle / "golden/golden.json"
    path.write_text(json.dumps(change(json.loads(path.read_bytes()))))
    tracemalloc.start()
    message = use_bundle(bundle)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert message
    assert len(message) < 3000
    assert peak < PEAK_BYTES


def test_graph_of_zeros_fails_at_the_largest_tolerance(bundle: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(bundle / "model.onnx")
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            zeros = 0 * onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(zeros, tensor.name))
    onnx.save_model(model, bundle / "model.onnx")
    path = bundle / "golden/golden.json"
    golden = json.loads(path.read_bytes())
    for case in golden["cases"]:
        case["logits"] = [10 * value for value in case["logits"]]
    path.write_text(json.dumps({**golden, "tolerance": MAX_TOLERANCE}))
    assert len(verify_bundle(bundle).failures) == 5


@pytest.mark.parametrize("tolerance", [-1e-4, 1.0, float("inf"), float("nan")])
def test_tolerance_argument_is_bounded(exported: Path, tolerance: float) -> None:
    with pytest.raises(ValueError, match=r"tolerance must be 0 to 0\.5"):
        verify_bundle(exported, tolerance)


def test_graph_that_fails_on_some_batches_is_named(exported: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    bundle = Path(shutil.copytree(exported, tmp_path / "fixed"))
    model = onnx.load(bundle / "model.onnx")
    shape = onnx.helper.make_node("Constant", [], ["one_row"], value_ints=[1, 4])
    model.graph.node[-1].output[0] = "rows"
    reshape = onnx.helper.make_node("Reshape", ["rows", "one_row"], ["flat"])
    add = onnx.helper.make_node("Add", ["rows", "flat"], ["logits"])
    model.graph.node.extend([shape, reshape, add])
    onnx.save_model(model, bundle / "model.onnx")
    images = [exported / "golden/000.png", exported / "golden/001.png"]
    with pytest.raises(BundleError, match="onnxruntime cannot run this model on 2 images"):
        Classifier(bundle).predict(images)
