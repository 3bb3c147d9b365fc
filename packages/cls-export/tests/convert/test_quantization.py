import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cls_export import BundleError, Classifier, ConversionError, verify_bundle
from cls_export.cli.main import main

onnx = pytest.importorskip("onnx")

from cls_export.convert.quantization import quantize_bundle  # noqa: E402  (needs onnx)


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    coarse = [Image.fromarray(rng.integers(0, 256, (5, 4, 3), dtype=np.uint8)) for _ in range(60)]
    return [image.resize((20, 30), Image.Resampling.BICUBIC) for image in coarse]


@pytest.fixture
def source() -> Path:
    return Path(__file__).parents[1] / "golden/bundle_v2"


def test_int8_bundle_is_accurate_and_verifies(
    source: Path, images: list[Image.Image], tmp_path: Path
) -> None:
    report = quantize_bundle(
        source, tmp_path / "int8", images[:40], images[40:], max_accuracy_drop=0.05
    )
    assert report.images == 20
    assert report.accuracy_after >= 0.95
    assert 0 < report.max_difference < 0.1
    assert verify_bundle(tmp_path / "int8").passed
    before, after = Classifier(source), Classifier(tmp_path / "int8")
    assert after.labels == before.labels.model_copy(update={"schema_version": 3})
    assert after.has_checked_hash
    assert np.abs(before.logits(images) - after.logits(images)).max() < 0.1
    kinds = {node.op_type for node in onnx.load(tmp_path / "int8/model.onnx").graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    assert sorted(path.name for path in tmp_path.iterdir()) == ["int8"]


def test_changed_int8_model_fails_verification(
    source: Path,
    images: list[Image.Image],
    tmp_path: Path,
    restate_hashes: Callable[[Path], None],
) -> None:
    quantize_bundle(source, tmp_path / "int8", images[:40], images[40:], max_accuracy_drop=1)
    model = onnx.load(tmp_path / "int8/model.onnx")
    for tensor in model.graph.initializer:
        if list(tensor.dims) == [4] and tensor.data_type == onnx.TensorProto.INT32:
            changed = onnx.numpy_helper.to_array(tensor) // 2 + 2000
            tensor.CopyFrom(onnx.numpy_helper.from_array(changed.astype(np.int32), tensor.name))
    onnx.save_model(model, tmp_path / "int8/model.onnx")
    with pytest.raises(BundleError, match=r"model\.onnx is damaged"):
        verify_bundle(tmp_path / "int8")
    restate_hashes(tmp_path / "int8")
    assert not verify_bundle(tmp_path / "int8").passed


def test_excessive_accuracy_drop_writes_nothing(
    source: Path, images: list[Image.Image], tmp_path: Path
) -> None:
    with pytest.raises(ConversionError, match="Nothing was written"):
        quantize_bundle(
            source,
            tmp_path / "int8",
            [Image.new("RGB", (20, 30))],
            images,
            ["23"] * len(images),
            max_accuracy_drop=-1,
        )
    assert list(tmp_path.iterdir()) == []


def test_refused_accuracy_drop_exits_with_1_as_failed_work(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(1)
    colors = rng.integers(0, 256, (2000, 3))
    images = [np.full((12, 10, 3), color, np.uint8) for color in colors]
    black = np.zeros((12, 10, 3), np.uint8)  # its ranges clip every other image
    quantize_bundle(source, tmp_path / "first", [black], images[:20], max_accuracy_drop=1)

    before = Classifier(source).predict(images)
    after = Classifier(tmp_path / "first").predict(images)
    rows = []
    for number, prediction in enumerate(before):
        if prediction.label != after[number].label:
            Image.fromarray(images[number]).save(tmp_path / f"{number}.png")
            rows.append(json.dumps({"image": f"{number}.png", "suffix": prediction.label}))
    assert rows
    (tmp_path / "eval.jsonl").write_text("\n".join(rows))
    Image.fromarray(black).save(tmp_path / "black.png")
    (tmp_path / "black.jsonl").write_text('{"image": "black.png", "suffix": "23"}')

    target = tmp_path / "int8"
    files = ["--calibration-images", str(tmp_path / "black.jsonl")]
    files += ["--eval-images", str(tmp_path / "eval.jsonl")]
    assert main(["quantize", str(source), str(target), *files]) == 1
    message = capsys.readouterr().err
    assert "float32 100.00%: the drop is over 0.50%. Nothing was written" in message
    assert not target.exists()


def test_quantize_command_prints_report(
    source: Path, images: list[Image.Image], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = []
    for number, image in enumerate(images):
        image.save(tmp_path / f"{number}.png")
        (prediction,) = Classifier(source).predict([image])
        rows.append(json.dumps({"image": f"{number}.png", "suffix": prediction.label}))
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    both = [
        "--calibration-images",
        str(tmp_path / "a.jsonl"),
        "--eval-images",
        str(tmp_path / "a.jsonl"),
    ]
    assert (
        main(["quantize", str(source), str(tmp_path / "int8"), *both, "--max-accuracy-drop", "0.1"])
        == 0
    )
    output = capsys.readouterr().out
    assert "on 60 images, float32 100.00%" in output
    assert "ms per image in batches of 8" in output
    assert main(["verify", str(tmp_path / "int8")]) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "contains no rows"),
        ("{}", "a.jsonl:1: expected a line such as"),
        ('\n{"image": "a.jpg", "label": "0"}\nno json', "a.jsonl:3: expected a line such as"),
        ("3", 'expected a line such as {"image": "a.jpg", "suffix": "23"}'),
        (
            '{"image": "b.jpg", "suffix": 23}',
            "the label of b.jpg is 23; expected a class name as a string",
        ),
    ],
)
def test_malformed_annotations_are_refused(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    (tmp_path / "a.jsonl").write_text(text)
    both = [
        "--calibration-images",
        str(tmp_path / "a.jsonl"),
        "--eval-images",
        str(tmp_path / "a.jsonl"),
    ]
    assert main(["quantize", str(source), str(tmp_path / "int8"), *both]) == 2
    assert message in capsys.readouterr().err


def test_unknown_eval_label_is_refused(
    source: Path, images: list[Image.Image], tmp_path: Path
) -> None:
    with pytest.raises(
        BundleError,
        match=r"label 'No. 23' in the evaluation set is not a class .* Classes: '', '0'",
    ):
        quantize_bundle(source, tmp_path / "int8", images[:4], images[:2], ["23", "No. 23"])
    assert not (tmp_path / "int8").exists()


def test_converting_bundle_onto_itself_is_refused(source: Path, images: list[Image.Image]) -> None:
    with pytest.raises(BundleError, match="is the float32 bundle itself and would be lost"):
        quantize_bundle(source, source.parent / "../golden/bundle_v2", images[:4], images[:2])


@pytest.mark.parametrize(
    "command",
    [
        ["quantize", "bundle", "target", "--calibration-images", "a", "--eval-images", "b"],
        ["float16", "bundle", "target", "--eval-images", "b"],
        ["migrate", "model", "mapping", "target", "--golden", "image"],
    ],
)
def test_commands_without_onnx_print_install_command(command: list[str]) -> None:
    code = (
        "import sys; sys.modules['onnx'] = None\n"
        f"from cls_export.cli.main import main\nsys.exit(main({command!r}))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert (
        'onnx is not installed. To write ONNX files: pip install "cls-export[torch]"'
        in result.stderr
    )
