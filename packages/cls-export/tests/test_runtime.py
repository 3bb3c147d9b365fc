from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cls_export import BundleError, Classifier, ImageError, LabelsMapping


def test_predictions_carry_label_confidence_and_logits_in_order(exported: Path, image_files: list[Path]) -> None:
    classifier = Classifier(exported)
    predictions = classifier.predict(image_files, top_k=3)
    logits = classifier.logits(image_files)
    assert logits.shape == (5, 4)
    for prediction, row in zip(predictions, logits, strict=True):
        assert np.array_equal(prediction.logits, row)
        assert prediction.label == classifier.labels.classes[int(row.argmax())]
        probabilities = np.exp(row) / np.exp(row).sum()
        assert prediction.confidence == pytest.approx(probabilities.max(), rel=1e-5)
        assert [name for name, _ in prediction.top_k] == [classifier.labels.classes[i] for i in np.argsort(-row)[:3]]


def test_the_batch_size_changes_no_answer(exported: Path, image_files: list[Path]) -> None:
    whole = Classifier(exported, batch_size=32).logits(image_files)
    for size in (1, 2, 3):
        assert np.allclose(Classifier(exported, batch_size=size).logits(image_files), whole, atol=1e-6)


def test_no_image_gives_no_answer(exported: Path) -> None:
    assert Classifier(exported).predict([]) == []
    assert Classifier(exported).logits([]).shape == (0, 4)


def test_a_stream_is_answered_while_it_comes(exported: Path, image_files: list[Path]) -> None:
    taken: list[Path] = []

    def source() -> list[Path]:
        yield from (taken.append(path) or path for path in image_files)  # type: ignore[func-returns-value]

    answers = Classifier(exported, batch_size=2).stream(source())
    next(answers)
    assert len(taken) == 2


def test_a_lone_onnx_file_carries_its_own_mapping(exported: Path, image_files: list[Path]) -> None:
    lone = Classifier(exported / "model.onnx")
    assert np.array_equal(lone.logits(image_files), Classifier(exported).logits(image_files))


def test_grey_images_and_arrays_are_taken(exported: Path) -> None:
    classifier = Classifier(exported, threads=1)
    grey = Image.new("L", (40, 30), 100)
    assert np.array_equal(classifier.logits([grey]), classifier.logits([np.full((30, 40, 3), 100, np.uint8)]))


def test_a_damaged_image_is_an_error_by_name(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8 no more")
    with pytest.raises(ImageError, match=r"bad.jpg: not a whole, readable image"):
        Classifier(exported).predict([tmp_path / "bad.jpg"])


@pytest.mark.parametrize("part", ["model.onnx", "labels_mapping.json"])
def test_a_bundle_with_a_missing_part_is_refused(bundle: Path, part: str) -> None:
    (bundle / part).unlink()
    with pytest.raises(BundleError, match=f"{part} is missing"):
        Classifier(bundle)


def test_a_missing_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such bundle; expected a folder"):
        Classifier(tmp_path / "nowhere")


def test_a_truncated_model_is_refused(bundle: Path) -> None:
    data = (bundle / "model.onnx").read_bytes()
    (bundle / "model.onnx").write_bytes(data[: len(data) // 2])
    with pytest.raises(BundleError, match="onnxruntime cannot load this file"):
        Classifier(bundle)


def test_another_mapping_beside_the_model_is_refused(bundle: Path, labels: LabelsMapping) -> None:
    other = labels.preprocessing.model_copy(update={"resample": "bicubic"})
    LabelsMapping.from_classes(labels.class_to_idx, other).save(bundle / "labels_mapping.json")
    with pytest.raises(BundleError, match="differ; one of them was replaced or edited"):
        Classifier(bundle)


def test_weights_outside_the_file_are_refused_even_from_within_its_folder(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(bundle / "model.onnx")
    onnx.save_model(model, bundle / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert (bundle / "weights.bin").exists()
    monkeypatch.chdir(bundle)
    with pytest.raises(BundleError, match="onnxruntime cannot load this file"):
        Classifier(bundle)


def test_a_frozen_batch_axis_is_refused(bundle: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(bundle / "model.onnx")
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 2
    onnx.save_model(model, bundle / "model.onnx")
    with pytest.raises(BundleError, match="N being free; found"):
        Classifier(bundle)


@pytest.mark.parametrize(
    "single", ["a.jpg", b"bytes", Path("a.jpg"), Image.new("RGB", (9, 9)), np.zeros((9, 9, 3), np.uint8)]
)
def test_a_single_image_in_place_of_a_list_is_said(exported: Path, single: Any) -> None:
    with pytest.raises(TypeError, match=r"takes any number of images; for one, pass a list: predict\(\[image\]\)"):
        Classifier(exported).predict(single)


@pytest.mark.parametrize("wrong", [{"providers": "CPUExecutionProvider"}, {"providers": ()}, {"batch_size": 0}])
def test_a_wrong_setting_is_refused(exported: Path, wrong: Any) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Classifier(exported, **wrong)
    with pytest.raises(ValueError, match="top_k"):
        Classifier(exported).predict([Image.new("RGB", (9, 9))], top_k=0)


def test_a_provider_that_is_not_there_is_refused(exported: Path) -> None:
    with pytest.raises(BundleError, match="NoSuchExecutionProvider"):
        Classifier(exported, providers=["NoSuchExecutionProvider"])


def test_the_provider_in_use_is_reported(exported: Path) -> None:
    assert Classifier(exported).providers == ["CPUExecutionProvider"]
