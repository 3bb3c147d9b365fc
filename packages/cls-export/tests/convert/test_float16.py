import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cls_export import BundleError, Classifier, ConversionError, verify_bundle
from cls_export.cli.main import main

onnx = pytest.importorskip("onnx")

from cls_export.convert.float16 import convert_to_float16  # noqa: E402  (needs onnx)


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    coarse = [Image.fromarray(rng.integers(0, 256, (5, 4, 3), dtype=np.uint8)) for _ in range(20)]
    return [image.resize((20, 30), Image.Resampling.BICUBIC) for image in coarse]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return Path(
        shutil.copytree(Path(__file__).parents[1] / "golden/bundle_v2", tmp_path / "source")
    )


def scale_weight(bundle: Path, shape: list[int], factor: float) -> None:
    """Multiply one weight of a bundle's graph."""
    model = onnx.load(bundle / "model.onnx")
    (weight,) = (tensor for tensor in model.graph.initializer if list(tensor.dims) == shape)
    values = onnx.numpy_helper.to_array(weight)
    weight.CopyFrom(
        onnx.numpy_helper.from_array((values * factor).astype(values.dtype), weight.name)
    )
    onnx.save_model(model, bundle / "model.onnx")


def test_float16_bundle_is_accurate_and_verifies(
    source: Path, images: list[Image.Image], tmp_path: Path
) -> None:
    report = convert_to_float16(source, tmp_path / "float16", images)
    assert (report.images, report.accuracy_before, report.accuracy_after) == (20, 1.0, 1.0)
    assert 0 < report.max_difference < 1e-3
    assert verify_bundle(tmp_path / "float16").passed
    before, after = Classifier(source), Classifier(tmp_path / "float16")
    assert after.labels == before.labels.model_copy(update={"schema_version": 3})
    assert after.has_checked_hash
    assert 0 < np.abs(before.logits(images) - after.logits(images)).max() < 1e-3


def test_float16_bundle_has_float16_weights_and_float32_io(
    source: Path, images: list[Image.Image], tmp_path: Path
) -> None:
    convert_to_float16(source, tmp_path / "float16", images)
    model = onnx.load(tmp_path / "float16/model.onnx")
    onnx.checker.check_model(model, full_check=True)
    kinds = {tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) > 1}
    assert kinds == {onnx.TensorProto.FLOAT16}
    ends = (model.graph.input[0], model.graph.output[0])
    assert {tensor.type.tensor_type.elem_type for tensor in ends} == {onnx.TensorProto.FLOAT}


def test_changed_float16_model_fails_verification(
    source: Path,
    images: list[Image.Image],
    tmp_path: Path,
    restate_hashes: Callable[[Path], None],
) -> None:
    convert_to_float16(source, tmp_path / "float16", images)
    scale_weight(tmp_path / "float16", [4, 8], 1.1)
    with pytest.raises(BundleError, match=r"model\.onnx is damaged"):
        verify_bundle(tmp_path / "float16")
    restate_hashes(tmp_path / "float16")
    assert not verify_bundle(tmp_path / "float16").passed


def test_float16_overflow_is_named_and_nothing_is_written(
    source: Path, images: list[Image.Image], tmp_path: Path
) -> None:
    scale_weight(source, [8, 3, 3, 3], 1e6)
    scale_weight(source, [4, 8], 1e-6)
    with pytest.raises(
        ConversionError,
        match=r"reaches \d.*e\+\d+ on an evaluation image, over the largest float16, 65,504",
    ):
        convert_to_float16(source, tmp_path / "float16", images)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_excessive_accuracy_drop_writes_nothing(
    source: Path, images: list[Image.Image], tmp_path: Path
) -> None:
    with pytest.raises(ConversionError, match="Nothing was written"):
        convert_to_float16(source, tmp_path / "float16", images, max_accuracy_drop=-1)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize(
    ("eval_labels", "message"),
    [
        (None, "float16 needs evaluation images, got none"),
        (["23"], "float16 needs a label for each evaluation image, .* 20 images and 1 labels"),
    ],
)
def test_eval_images_and_matching_labels_are_required(
    source: Path,
    images: list[Image.Image],
    tmp_path: Path,
    eval_labels: list[str] | None,
    message: str,
) -> None:
    given = images if eval_labels else []
    with pytest.raises(BundleError, match=message):
        convert_to_float16(source, tmp_path / "float16", given, eval_labels)


def test_float16_command_prints_report(
    source: Path, images: list[Image.Image], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = []
    for number, (image, prediction) in enumerate(
        zip(images, Classifier(source).predict(images), strict=True)
    ):
        image.save(tmp_path / f"{number}.png")
        rows.append(json.dumps({"image": f"{number}.png", "suffix": prediction.label}))
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    assert (
        main(
            [
                "float16",
                str(source),
                str(tmp_path / "float16"),
                "--eval-images",
                str(tmp_path / "a.jsonl"),
            ]
        )
        == 0
    )
    output = capsys.readouterr().out
    assert "100.00% on 20 images, float32 100.00%" in output
    assert [line.split()[0] for line in output.splitlines()[-2:]] == ["float16", "float32"]
    assert main(["verify", str(tmp_path / "float16")]) == 0
