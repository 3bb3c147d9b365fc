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

pytestmark = pytest.mark.filterwarnings(
    "ignore:the labels mapping does not describe the preprocessing"
)


@pytest.fixture
def legacy(exported: Path, tmp_path: Path) -> tuple[Path, Path]:
    """An ONNX file with other names and no metadata, and a mapping of four keys."""
    labels = json.loads((exported / "labels_mapping.json").read_bytes())
    mapping = tmp_path / "labels_mapping.json"
    mapping.write_text(json.dumps({key: labels[key] for key in FOUR_KEYS}))
    model = onnx.load(exported / "model.onnx")
    del model.metadata_props[:]
    for node in model.graph.node:
        node.input[:] = ["input" if name == "images" else name for name in node.input]
        node.output[:] = ["output" if name == "logits" else name for name in node.output]
    model.graph.input[0].name, model.graph.output[0].name = "input", "output"
    onnx.save_model(model, tmp_path / "legacy.onnx")
    return tmp_path / "legacy.onnx", mapping


def change_graph(model: Path, change: Callable[[Any], None]) -> None:
    loaded = onnx.load(model)
    change(loaded.graph)
    onnx.save_model(loaded, model)


def dimension(value: Any, axis: int) -> Any:
    return value.type.tensor_type.shape.dim[axis]


def test_migrated_bundle_gives_same_logits(
    legacy: tuple[Path, Path], image_files: list[Path], tmp_path: Path
) -> None:
    with pytest.warns(UserWarning, match="Assumed: 'squash' to 12 x 10 px; bilinear resampling"):
        migrate(*legacy, tmp_path / "bundle", image_files)
    assert verify_bundle(tmp_path / "bundle").passed
    classifier = Classifier(tmp_path / "bundle")
    inputs = np.concatenate([classifier.labels.preprocessing(path) for path in image_files])
    (expected,) = ort.InferenceSession(legacy[0]).run(None, {"input": inputs})
    assert np.abs(classifier.logits(image_files) - expected).max() < 1e-5
    assert classifier.labels.classes == ("", "0", "00", "23")


def test_fixed_batch_axis_is_freed(
    legacy: tuple[Path, Path], image_files: list[Path], tmp_path: Path
) -> None:
    def fix(graph: Any) -> None:
        for value in (graph.input[0], graph.output[0]):
            dimension(value, 0).dim_value = 1

    change_graph(legacy[0], fix)
    migrate(*legacy, tmp_path / "bundle", image_files)
    assert len(Classifier(tmp_path / "bundle").logits(image_files)) == 5


@pytest.mark.parametrize(
    ("added_to_rows", "message"),
    [
        (False, "does not work with a free batch axis"),
        (True, "does not work for a batch of 2 images"),
    ],
)
def test_graph_for_single_batch_size_is_refused(
    legacy: tuple[Path, Path],
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

    change_graph(legacy[0], flatten_one)
    with pytest.raises(BundleError, match=message):
        migrate(*legacy, tmp_path / "bundle", image_files)
    assert not (tmp_path / "bundle").exists()


def test_graph_that_mixes_images_of_batch_is_refused(
    legacy: tuple[Path, Path], image_files: list[Path], tmp_path: Path
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

    change_graph(legacy[0], mix)
    with pytest.raises(
        BundleError, match="a batch of 2 images gives other logits than single images"
    ):
        migrate(*legacy, tmp_path / "bundle", image_files)


def free_size(graph: Any) -> None:
    for axis in (2, 3):
        dimension(graph.input[0], axis).dim_param = f"side{axis}"


def test_free_input_size_needs_size_argument(
    legacy: tuple[Path, Path], image_files: list[Path], tmp_path: Path
) -> None:
    change_graph(legacy[0], free_size)
    with pytest.raises(
        BundleError, match=r"leaves height and width free; pass the training size \(size\)"
    ):
        migrate(*legacy, tmp_path / "bundle", image_files)
    migrate(
        *legacy,
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
            "ends in Softmax, but a bundle outputs logits; remove that node",
        ),
        (takes_bytes, {}, r"expected one input, float32 \[N, 3, H, W\]; got 'input' UINT8"),
        (channels_last, {}, "expected one input"),
        (free_height, {}, r"only one of height and width is fixed, \[None, 10\]"),
        (
            five_classes,
            {},
            r"expected one output, float32 \[N, 4\] .*; got 'output' FLOAT",
        ),
        (lambda graph: None, {"size": (9, 9)}, r"takes 12 x 10 px, but size is \(9, 9\)"),
        (lambda graph: None, {"resize": "shortest_edge"}, "needs resize_to of at least 12"),
        (lambda graph: None, {"golden": []}, "at least one golden image"),
    ],
)
def test_unsupported_model_is_refused_with_reason(
    legacy: tuple[Path, Path],
    image_files: list[Path],
    tmp_path: Path,
    change: Any,
    options: Any,
    message: str,
) -> None:
    change_graph(legacy[0], change)
    with pytest.raises(BundleError, match=message):
        migrate(*legacy, tmp_path / "bundle", **{"golden": image_files, **options})
    assert not (tmp_path / "bundle").exists()


def test_unreadable_model_or_mapping_is_named(
    legacy: tuple[Path, Path], image_files: list[Path], tmp_path: Path
) -> None:
    model, mapping = legacy
    (tmp_path / "junk").write_bytes(b"junk")
    with pytest.raises(BundleError, match="junk: not a readable ONNX file"):
        migrate(tmp_path / "junk", mapping, tmp_path / "bundle", image_files)
    with pytest.raises(BundleError, match=r"gone.json: cannot be read \(No such file"):
        migrate(model, tmp_path / "gone.json", tmp_path / "bundle", image_files)
    with pytest.raises(BundleError, match="not a labels mapping of four keys"):
        migrate(model, tmp_path / "junk", tmp_path / "bundle", image_files)


def test_migrate_command_prints_assumptions(
    legacy: tuple[Path, Path],
    image_files: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files = [*map(str, legacy), str(tmp_path / "bundle")]
    assert main(["migrate", *files, "--golden", str(image_files[0]), "--resize", "letterbox"]) == 0
    output = capsys.readouterr()
    assert (
        "cls-export: the labels mapping does not describe the preprocessing. Assumed: bilinear"
        in output.err
    )
    assert f"wrote {tmp_path / 'bundle'}" in output.out
    assert main(["verify", str(tmp_path / "bundle")]) == 0
    assert (
        LabelsMapping.load(tmp_path / "bundle/labels_mapping.json").preprocessing.resize
        == "letterbox"
    )


def test_missing_golden_image_exits_with_one_line(
    legacy: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(["migrate", *map(str, legacy), str(tmp_path / "bundle"), "--golden", "gone.jpg"]) == 2
    )
    assert "cls-export: gone.jpg: cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()
