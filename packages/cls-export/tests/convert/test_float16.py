import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cls_export import BundleError, Classifier, verify_bundle
from cls_export.cli.main import main

onnx = pytest.importorskip("onnx")

from cls_export.convert.float16 import convert_to_float16  # noqa: E402  (needs onnx)


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    draws = np.random.default_rng(0)
    coarse = [Image.fromarray(draws.integers(0, 256, (5, 4, 3), dtype=np.uint8)) for _ in range(20)]
    return [image.resize((20, 30), Image.Resampling.BICUBIC) for image in coarse]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return Path(
        shutil.copytree(Path(__file__).parents[1] / "golden/bundle_v2", tmp_path / "source")
    )


def scaled(bundle: Path, shape: list[int], factor: float) -> None:
    """Multiply one weight of a bundle's graph."""
    model = onnx.load(bundle / "model.onnx")
    (weight,) = (each for each in model.graph.initializer if list(each.dims) == shape)
    values = onnx.numpy_helper.to_array(weight)
    weight.CopyFrom(
        onnx.numpy_helper.from_array((values * factor).astype(values.dtype), weight.name)
    )
    onnx.save_model(model, bundle / "model.onnx")


def test_a_float16_bundle_answers_nearly_as_before_and_verifies(
    source: Path, images: list[Image.Image], tmp_path: Path
) -> None:
    found = convert_to_float16(source, tmp_path / "half", images)
    assert (found.images, found.before, found.after) == (20, 1.0, 1.0)
    assert 0 < found.max_difference < 1e-3
    assert verify_bundle(tmp_path / "half").passed
    before, after = Classifier(source), Classifier(tmp_path / "half")
    assert after.labels == before.labels
    assert 0 < np.abs(before.logits(images) - after.logits(images)).max() < 1e-3


def test_its_weights_are_float16_and_its_input_and_output_float32(
    source: Path, images: list[Image.Image], tmp_path: Path
) -> None:
    convert_to_float16(source, tmp_path / "half", images)
    model = onnx.load(tmp_path / "half/model.onnx")
    onnx.checker.check_model(model, full_check=True)
    kinds = {each.data_type for each in model.graph.initializer if len(each.dims) > 1}
    assert kinds == {onnx.TensorProto.FLOAT16}
    ends = (model.graph.input[0], model.graph.output[0])
    assert {each.type.tensor_type.elem_type for each in ends} == {onnx.TensorProto.FLOAT}


def test_another_float16_model_does_not_verify(
    source: Path, images: list[Image.Image], tmp_path: Path
) -> None:
    convert_to_float16(source, tmp_path / "half", images)
    scaled(tmp_path / "half", [4, 8], 1.1)
    assert not verify_bundle(tmp_path / "half").passed


def test_a_layer_that_float16_cannot_hold_is_named_and_nothing_written(
    source: Path, images: list[Image.Image], tmp_path: Path
) -> None:
    scaled(source, [8, 3, 3, 3], 1e6)
    scaled(source, [4, 8], 1e-6)
    with pytest.raises(
        BundleError, match=r"reaches \d.*e\+\d+ on an image to judge by, and float16 ends at 65,504"
    ):
        convert_to_float16(source, tmp_path / "half", images)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_loss_over_what_is_allowed_writes_nothing(
    source: Path, images: list[Image.Image], tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match="so nothing was written"):
        convert_to_float16(source, tmp_path / "half", images, max_accuracy_drop=-1)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize("truth", [None, ["23"]])
def test_images_to_judge_by_and_their_classes_are_needed(
    source: Path, images: list[Image.Image], tmp_path: Path, truth: list[str] | None
) -> None:
    with pytest.raises(
        BundleError,
        match="float16 needs images to be eval_images by, with a class for each or for none",
    ):
        convert_to_float16(source, tmp_path / "half", images if truth else [], truth)


def test_the_command_says_what_float16_costs_and_brings(
    source: Path, images: list[Image.Image], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = []
    for number, (image, answer) in enumerate(
        zip(images, Classifier(source).predict(images), strict=True)
    ):
        image.save(tmp_path / f"{number}.png")
        rows.append(json.dumps({"image": f"{number}.png", "suffix": answer.label}))
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    assert (
        main(["half", str(source), str(tmp_path / "half"), "--judge", str(tmp_path / "a.jsonl")])
        == 0
    )
    said = capsys.readouterr().out
    assert "100.00% of 20 images, in float32 100.00%" in said
    assert [line.split()[0] for line in said.splitlines()[-2:]] == ["float16", "float32"]
    assert main(["verify", str(tmp_path / "half")]) == 0
