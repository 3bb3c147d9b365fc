import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from cls_export import BundleError, Classifier, LabelsMapping, verify_bundle
from cls_export.cli.main import main

onnx = pytest.importorskip("onnx")

from cls_export.convert.migration import migrate  # noqa: E402  (needs onnx)

FOUR_KEYS = ("num_classes", "class_to_idx", "idx_to_class", "normalization")

pytestmark = pytest.mark.filterwarnings("ignore:the mapping does not say how")


@pytest.fixture
def older(exported: Path, tmp_path: Path) -> tuple[Path, Path]:
    """An ONNX file with names of its own and no metadata, and a mapping of four keys."""
    labels = json.loads((exported / "labels_mapping.json").read_bytes())
    mapping = tmp_path / "labels_mapping.json"
    mapping.write_text(json.dumps({key: labels[key] for key in FOUR_KEYS}))
    model = onnx.load(exported / "model.onnx")
    del model.metadata_props[:]
    for node in model.graph.node:
        node.input[:] = ["input" if name == "images" else name for name in node.input]
        node.output[:] = ["output" if name == "logits" else name for name in node.output]
    model.graph.input[0].name, model.graph.output[0].name = "input", "output"
    onnx.save_model(model, tmp_path / "older.onnx")
    return tmp_path / "older.onnx", mapping


def changed(model: Path, change: Callable[[Any], None]) -> None:
    loaded = onnx.load(model)
    change(loaded.graph)
    onnx.save_model(loaded, model)


def dimension(value: Any, place: int) -> Any:
    return value.type.tensor_type.shape.dim[place]


def test_an_older_model_becomes_a_bundle_that_answers_as_it_did(
    older: tuple[Path, Path], image_files: list[Path], tmp_path: Path
) -> None:
    with pytest.warns(UserWarning, match="assumed: 'squash' to 12 x 10 px; bilinear resampling"):
        migrate(*older, tmp_path / "bundle", image_files)
    assert verify_bundle(tmp_path / "bundle").passed
    classifier = Classifier(tmp_path / "bundle")
    inputs = np.concatenate([classifier.labels.preprocessing(path) for path in image_files])
    (expected,) = ort.InferenceSession(older[0]).run(None, {"input": inputs})
    assert np.abs(classifier.logits(image_files) - expected).max() < 1e-5
    assert classifier.labels.classes == ("", "0", "00", "23")


def test_a_fixed_batch_axis_is_freed_where_the_graph_allows_it(
    older: tuple[Path, Path], image_files: list[Path], tmp_path: Path
) -> None:
    def fix(graph: Any) -> None:
        for value in (graph.input[0], graph.output[0]):
            dimension(value, 0).dim_value = 1

    changed(older[0], fix)
    migrate(*older, tmp_path / "bundle", image_files)
    assert len(Classifier(tmp_path / "bundle").logits(image_files)) == 5


@pytest.mark.parametrize(
    ("added_to_rows", "message"),
    [
        (False, "does not work for any number of images"),
        (True, "does not work for 2 images at once"),
    ],
)
def test_a_graph_that_works_for_one_image_alone_is_refused(
    older: tuple[Path, Path],
    image_files: list[Path],
    tmp_path: Path,
    added_to_rows: bool,
    message: str,
) -> None:
    def flatten_one(graph: Any) -> None:
        graph.initializer.append(
            onnx.numpy_helper.from_array(np.array([1, 4], np.int64), "one_row")
        )
        graph.node[-1].output[0] = "rows"
        flat = "flat" if added_to_rows else "output"
        graph.node.append(onnx.helper.make_node("Reshape", ["rows", "one_row"], [flat]))
        if added_to_rows:
            graph.node.append(onnx.helper.make_node("Add", ["rows", flat], ["output"]))

    changed(older[0], flatten_one)
    with pytest.raises(BundleError, match=message):
        migrate(*older, tmp_path / "bundle", image_files)
    assert not (tmp_path / "bundle").exists()


def test_a_graph_that_mixes_the_images_of_a_batch_is_refused(
    older: tuple[Path, Path], image_files: list[Path], tmp_path: Path
) -> None:
    def mix(graph: Any) -> None:
        graph.node[-1].output[0] = "rows"
        graph.initializer.append(
            onnx.numpy_helper.from_array(np.array([0], np.int64), "batch_axis")
        )
        graph.node.append(
            onnx.helper.make_node("ReduceMean", ["rows", "batch_axis"], ["batch_mean"], keepdims=1)
        )
        graph.node.append(onnx.helper.make_node("Add", ["rows", "batch_mean"], ["output"]))

    changed(older[0], mix)
    with pytest.raises(BundleError, match="answers 2 images at once otherwise than one by one"):
        migrate(*older, tmp_path / "bundle", image_files)


def free_size(graph: Any) -> None:
    for place in (2, 3):
        dimension(graph.input[0], place).dim_param = f"side{place}"


def test_a_size_that_the_model_leaves_free_has_to_be_said(
    older: tuple[Path, Path], image_files: list[Path], tmp_path: Path
) -> None:
    changed(older[0], free_size)
    with pytest.raises(BundleError, match=r"leaves height and width free; say which .* \(size\)"):
        migrate(*older, tmp_path / "bundle", image_files)
    migrate(
        *older,
        tmp_path / "bundle",
        image_files,
        size=(24, 20),
        resize="letterbox",
        resample="bicubic",
    )
    preprocessing = Classifier(tmp_path / "bundle").labels.preprocessing
    assert (preprocessing.size, preprocessing.resize, preprocessing.resample) == (
        (24, 20),
        "letterbox",
        "bicubic",
    )


def ends_in_softmax(graph: Any) -> None:
    graph.node[-1].output[0] = "raw"
    graph.node.append(onnx.helper.make_node("Softmax", ["raw"], ["output"]))


def takes_bytes(graph: Any) -> None:
    graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8


def channels_last(graph: Any) -> None:
    dimension(graph.input[0], 1).dim_value, dimension(graph.input[0], 3).dim_value = 12, 3


def free_height(graph: Any) -> None:
    dimension(graph.input[0], 2).dim_param = "height"


def five_classes(graph: Any) -> None:
    dimension(graph.output[0], 1).dim_value = 5


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (
            ends_in_softmax,
            {},
            "ends in Softmax; a bundle's graph gives logits, so leave that node out",
        ),
        (takes_bytes, {}, r"expected one input, float32 \[N, 3, H, W\]; found 'input' UINT8"),
        (channels_last, {}, "expected one input"),
        (free_height, {}, r"fixes one of height and width, \[None, 10\]"),
        (
            five_classes,
            {},
            r"expected one output, float32 \[N, 4\] for the mapping's classes; found 'output' FLOAT",
        ),
        (lambda graph: None, {"size": (9, 9)}, r"takes 12 x 10 px, and size says \(9, 9\)"),
        (lambda graph: None, {"resize": "shortest_edge"}, "needs resize_to of at least 12"),
        (lambda graph: None, {"golden": []}, "at least one golden image"),
    ],
)
def test_what_cannot_become_a_bundle_is_refused_with_the_reason(
    older: tuple[Path, Path],
    image_files: list[Path],
    tmp_path: Path,
    change: Any,
    options: Any,
    message: str,
) -> None:
    changed(older[0], change)
    with pytest.raises(BundleError, match=message):
        migrate(*older, tmp_path / "bundle", **{"golden": image_files, **options})
    assert not (tmp_path / "bundle").exists()


def test_files_that_are_no_model_or_mapping_are_named(
    older: tuple[Path, Path], image_files: list[Path], tmp_path: Path
) -> None:
    model, mapping = older
    (tmp_path / "junk").write_bytes(b"junk")
    with pytest.raises(BundleError, match="junk: not a readable ONNX file"):
        migrate(tmp_path / "junk", mapping, tmp_path / "bundle", image_files)
    with pytest.raises(BundleError, match=r"gone.json: cannot be read \(No such file"):
        migrate(model, tmp_path / "gone.json", tmp_path / "bundle", image_files)
    with pytest.raises(BundleError, match="not the ancestor's labels mapping"):
        migrate(model, tmp_path / "junk", tmp_path / "bundle", image_files)


def test_the_command_says_what_was_assumed_and_verify_accepts_the_bundle(
    older: tuple[Path, Path],
    image_files: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files = [*map(str, older), str(tmp_path / "bundle")]
    assert main(["migrate", *files, "--golden", str(image_files[0]), "--resize", "letterbox"]) == 0
    said = capsys.readouterr()
    assert (
        "cls-export: the mapping does not say how images become the model's input; assumed: bilinear"
        in said.err
    )
    assert "bundle written" in said.out
    assert main(["verify", str(tmp_path / "bundle")]) == 0
    assert (
        LabelsMapping.load(tmp_path / "bundle/labels_mapping.json").preprocessing.resize
        == "letterbox"
    )


def test_a_golden_image_that_is_missing_ends_in_one_line(
    older: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(["migrate", *map(str, older), str(tmp_path / "bundle"), "--golden", "gone.jpg"]) == 2
    )
    assert "cls-export: gone.jpg: cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()
