import io
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from PIL import Image

from cls_export import BundleError, Classifier, ImageError, LabelsMapping, Reject
from cls_export.runtime.bundle_files import _CHUNK_BYTES, _scan


def test_predictions_keep_order_and_match_logits(exported: Path, image_files: list[Path]) -> None:
    classifier = Classifier(exported)
    predictions = classifier.predict(image_files, top_k=3)
    logits = classifier.logits(image_files)
    assert logits.shape == (5, 4)
    for prediction, row in zip(predictions, logits, strict=True):
        assert np.array_equal(prediction.logits, row)
        assert prediction.label == classifier.labels.classes[int(row.argmax())]
        probabilities = np.exp(row) / np.exp(row).sum()
        assert prediction.confidence == pytest.approx(probabilities.max(), rel=1e-5)
        assert [name for name, _ in prediction.top_k] == [
            classifier.labels.classes[i] for i in np.argsort(-row)[:3]
        ]


def test_batch_size_does_not_change_logits(exported: Path, image_files: list[Path]) -> None:
    whole = Classifier(exported, batch_size=32).logits(image_files)
    for size in (1, 2, 3):
        assert np.allclose(
            Classifier(exported, batch_size=size).logits(image_files), whole, atol=1e-6
        )


def test_no_images_give_no_predictions(exported: Path) -> None:
    assert Classifier(exported).predict([]) == []
    assert Classifier(exported).logits([]).shape == (0, 4)


def test_stream_takes_one_batch_at_a_time(exported: Path, image_files: list[Path]) -> None:
    taken: list[Path] = []

    def source() -> list[Path]:
        yield from (taken.append(path) or path for path in image_files)  # type: ignore[func-returns-value]

    predictions = Classifier(exported, batch_size=2).stream(source())
    next(predictions)
    assert len(taken) == 2


def test_single_onnx_file_contains_its_mapping(exported: Path, image_files: list[Path]) -> None:
    lone = Classifier(exported / "model.onnx")
    assert np.array_equal(lone.logits(image_files), Classifier(exported).logits(image_files))


def test_gray_images_match_arrays(exported: Path) -> None:
    classifier = Classifier(exported, threads=1)
    gray = Image.new("L", (40, 30), 100)
    assert np.array_equal(
        classifier.logits([gray]), classifier.logits([np.full((30, 40, 3), 100, np.uint8)])
    )


def test_damaged_image_raises_error_with_name(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8 no more")
    with pytest.raises(ImageError, match=r"bad.jpg: cannot be decoded"):
        Classifier(exported).predict([tmp_path / "bad.jpg"])


def test_on_error_return_puts_error_in_position_of_image(
    exported: Path, image_files: list[Path]
) -> None:
    images = [image_files[0], b"damaged", image_files[1], Path("gone.jpg")]
    classifier = Classifier(exported, batch_size=3)
    first, damaged, second, gone = classifier.predict(images, on_error="return")
    assert isinstance(damaged, ImageError)
    assert "gone.jpg: cannot be read" in str(gone)
    for prediction, whole in zip((first, second), classifier.predict(image_files[:2]), strict=True):
        assert not isinstance(prediction, ImageError)
        assert np.allclose(prediction.logits, whole.logits, atol=1e-6)


def test_bgr_frames_match_rgb_frames(exported: Path) -> None:
    classifier = Classifier(exported)
    frame = np.random.default_rng(0).integers(0, 256, (30, 20, 3), dtype=np.uint8)
    opencv = np.ascontiguousarray(frame[..., ::-1])
    assert np.array_equal(classifier.logits([opencv], color="BGR"), classifier.logits([frame]))
    (prediction,) = classifier.predict([opencv], color="BGR")
    assert np.array_equal(prediction.logits, classifier.predict([frame])[0].logits)
    (box,) = classifier.predict_boxes(opencv, [[2, 3, 15, 25]], color="BGR")
    assert not isinstance(box, ImageError)
    assert np.array_equal(box.logits, classifier.logits([frame[3:25, 2:15]])[0])


@pytest.mark.parametrize(
    ("array", "hint"),
    [
        (np.zeros((9, 8, 3), np.float32), "from levels of 0 to 1: "),
        (np.full((9, 8, 3), 200.0), "from levels of 0 to 255: array.round"),
        (np.full((9, 8, 3), np.nan), "some values are NaN or infinite"),
        (np.zeros((9, 8, 3), np.uint16), "from 16 bits: "),
        (np.zeros((9, 8, 3), np.int64), "from levels of 0 to 255: array.astype"),
        (np.zeros((9, 8, 3), bool), "from True and False: "),
        (np.full((9, 8, 3), -0.5), "as it was before normalization"),
        (np.zeros((9, 8), np.uint8), "from gray levels: "),
        (np.zeros((9, 8, 1), np.uint8), "from gray levels: "),
        (np.zeros((3, 9, 8), np.uint8), "from channels first: "),
        (np.zeros((9, 8, 4), np.uint8), "without alpha: "),
        (np.zeros((2, 9, 8, 3), np.uint8), r"for a batch of images, pass list\(array\)"),
        (np.zeros((0, 8, 3), np.uint8), r"shape \(0, 8, 3\) .* this array is empty"),
    ],
)
def test_wrong_array_is_refused_with_conversion_hint(exported: Path, array: Any, hint: str) -> None:
    with pytest.raises(ImageError, match=hint):
        Classifier(exported).predict([array])


def test_errors_name_the_position_of_images_without_name(exported: Path) -> None:
    good = np.zeros((9, 8, 3), np.uint8)
    classifier = Classifier(exported, batch_size=2)
    with pytest.raises(
        ImageError,
        match=r"^image 3 \(counted from 0\): image bytes: cannot be decoded \(empty;",
    ):
        classifier.predict([good, good, good, b""])
    nothing: Any = None  # cv2.imread returns None for a missing file
    _, wrong = classifier.predict([good, nothing], on_error="return")
    assert str(wrong).startswith("image 1 (counted from 0): got a NoneType")
    with pytest.raises(ImageError, match=r"^image 1 "):
        classifier.logits([good, good[..., 0]])


def test_conversion_hint_restores_the_image(exported: Path) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (9, 8, 3), dtype=np.uint8)
    others: list[Any] = [
        levels / 255,
        levels + 0.2,
        levels.astype(np.uint16) << 8,
        levels.astype(np.int64),
        levels.transpose(2, 0, 1),
        np.dstack([levels, levels[..., :1]]),
    ]
    for other in others:
        with pytest.raises(ImageError) as caught:
            Classifier(exported).predict([other])
        hint = str(caught.value).split("; from ")[-1].split("; without ")[-1].split(": ", 1)[1]
        assert np.array_equal(eval(hint, {"array": other, "np": np}), levels)


def test_noncontiguous_array_is_accepted(exported: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    classifier = Classifier(exported)
    assert np.array_equal(
        classifier.logits([array[:, ::2]]), classifier.logits([array[:, ::2].copy()])
    )


def test_threads_can_share_classifier(exported: Path, image_files: list[Path]) -> None:
    classifier = Classifier(exported, batch_size=2)
    expected = classifier.logits(image_files)
    with ThreadPoolExecutor(4) as pool:
        for logits in pool.map(lambda _: classifier.logits(image_files), range(40)):
            assert np.array_equal(logits, expected)


def test_predictions_below_threshold_are_rejected(exported: Path, image_files: list[Path]) -> None:
    classifier = Classifier(exported)
    confidences = sorted(prediction.confidence for prediction in classifier.predict(image_files))
    reject = Reject(threshold=confidences[2], wanted="coverage", level=0.6, images=5)
    classifier.labels = classifier.labels.model_copy(update={"reject": reject})
    assert [prediction.rejected for prediction in classifier.predict(image_files)].count(True) == 2


@pytest.mark.parametrize("name", ["model.onnx", "labels_mapping.json"])
def test_bundle_with_missing_file_is_refused(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        Classifier(bundle)


def test_missing_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such bundle; expected a folder"):
        Classifier(tmp_path / "nowhere")


def test_truncated_model_is_refused(bundle: Path) -> None:
    data = (bundle / "model.onnx").read_bytes()
    (bundle / "model.onnx").write_bytes(data[: len(data) // 2])
    with pytest.raises(BundleError, match="onnxruntime cannot load this file"):
        Classifier(bundle)


def test_mapping_that_differs_from_model_is_refused(bundle: Path, labels: LabelsMapping) -> None:
    other = labels.preprocessing.model_copy(update={"resample": "bicubic"})
    mapping = LabelsMapping.from_classes(labels.class_to_idx, other)
    mapping.model_copy(update={"schema_version": 2}).save(bundle / "labels_mapping.json")
    with pytest.raises(BundleError, match="differs from the mapping inside"):
        Classifier(bundle)


def test_external_data_is_refused_even_in_working_directory(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx = pytest.importorskip("onnx")
    model, path = onnx.load(bundle / "model.onnx"), bundle / "model.onnx"
    # Tensors below 100 bytes are shapes; no session opens without them.
    onnx.save_model(
        model, path, save_as_external_data=True, location="weights.bin", size_threshold=100
    )
    monkeypatch.chdir(bundle)
    ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    with pytest.raises(
        BundleError, match="External data files are not read; export the model as one file"
    ):
        Classifier(bundle)


def test_node_named_location_is_accepted(bundle: Path, image_files: list[Path]) -> None:
    onnx = pytest.importorskip("onnx")
    model, before = onnx.load(bundle / "model.onnx"), Classifier(bundle).logits(image_files)
    model.graph.node[0].name = "location"
    onnx.save_model(model, bundle / "model.onnx")
    assert np.array_equal(Classifier(bundle).logits(image_files), before)


@pytest.mark.parametrize("before", [0, _CHUNK_BYTES - 3, _CHUNK_BYTES, 2 * _CHUNK_BYTES - 8])
def test_external_data_key_is_detected_across_chunks(before: int) -> None:
    assert _scan(io.BytesIO(bytes(before) + b"location")).may_have_external_data
    assert not _scan(io.BytesIO(bytes(before) + b"locatio")).may_have_external_data


def test_frozen_batch_axis_is_refused(bundle: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(bundle / "model.onnx")
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 2
    onnx.save_model(model, bundle / "model.onnx")
    with pytest.raises(
        BundleError,
        match=r"tensor\(float\) \[N, 4\] with a free N; the model has images tensor\(float\) \[2,",
    ):
        Classifier(bundle)


def test_number_of_classes_that_differs_from_mapping_is_refused(bundle: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(bundle / "model.onnx")
    for tensor in model.graph.initializer:
        if tensor.dims[:1] == [4]:
            values = onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(
                onnx.numpy_helper.from_array(np.concatenate([values, values[:1]]), tensor.name)
            )
    del model.graph.value_info[:]
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 5
    onnx.save_model(model, bundle / "model.onnx")
    with pytest.raises(
        BundleError, match=r"the model has images .*, logits tensor\(float\) \[N, 5\]"
    ):
        Classifier(bundle)


def test_older_model_is_refused_with_migrate_hint(
    bundle: Path,
) -> None:
    onnx = pytest.importorskip("onnx")
    mapping = json.loads((bundle / "labels_mapping.json").read_bytes())
    for key in ("preprocessing", "labels_sha256", "schema_version", "provenance"):
        del mapping[key]
    (bundle / "labels_mapping.json").write_text(json.dumps(mapping))
    with pytest.raises(
        BundleError, match="For a mapping of an older tool, run: cls-export migrate"
    ):
        Classifier(bundle)
    model = onnx.load(bundle / "model.onnx")
    del model.metadata_props[:]
    onnx.save_model(model, bundle / "model.onnx")
    with pytest.raises(BundleError, match=r"not written by cls-export .* run: cls-export migrate"):
        Classifier(bundle / "model.onnx")


@pytest.mark.parametrize(
    "single",
    [
        "a.jpg",
        b"bytes",
        Path("a.jpg"),
        Image.new("RGB", (9, 9)),
        np.zeros((9, 9, 3), np.uint8),
        np.zeros((9, 9), np.uint8),
        bytearray(b"bytes"),
        3,
        None,
    ],
)
def test_single_image_instead_of_list_is_refused(exported: Path, single: Any) -> None:
    with pytest.raises(TypeError, match=r"for a single image, pass a list: predict\(\[image\]\)"):
        Classifier(exported).predict(single)


@pytest.mark.parametrize(
    "wrong",
    [
        {"providers": "CPUExecutionProvider"},
        {"providers": ()},
        {"providers": [("CPUExecutionProvider", {})]},
        {"batch_size": 0},
        {"batch_size": 2.5},
        {"batch_size": None},
        {"batch_size": True},
        {"threads": 0},
        {"threads": "2"},
        {"threads": 1.0},
        {"threads": 1_000_000},
    ],
)
def test_invalid_settings_are_refused(exported: Path, wrong: Any) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Classifier(exported, **wrong)


@pytest.mark.parametrize("top_k", [0, -1, 2.0, "3", None, True])
def test_number_of_classes_in_a_prediction_is_a_whole_number(exported: Path, top_k: Any) -> None:
    classifier = Classifier(exported)
    image = np.zeros((9, 9, 3), np.uint8)
    message = "top_k must be a whole number of at least 1"
    with pytest.raises(ValueError, match=message):
        classifier.predict([image], top_k)
    with pytest.raises(ValueError, match=message):
        classifier.predict_boxes(image, [[0, 0, 5, 5]], top_k=top_k)
    with pytest.raises(ValueError, match=message):
        classifier.aggregate(classifier.predict([image]), top_k=top_k)


def test_numpy_integers_are_whole_numbers(exported: Path) -> None:
    classifier = Classifier(exported, batch_size=np.int64(2), threads=np.uint8(1))
    predictions = classifier.predict(np.zeros((3, 9, 9, 3), np.uint8), np.int32(2))
    assert [len(prediction.top_k) for prediction in predictions] == [2, 2, 2]


@pytest.mark.parametrize("wrong", [{"color": "rgb"}, {"on_error": "skip"}])
def test_invalid_choices_are_refused(exported: Path, wrong: Any) -> None:
    classifier, image = Classifier(exported), np.zeros((9, 9, 3), np.uint8)
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
        classifier.predict([image], **wrong)
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
        classifier.predict_boxes(image, [[0, 0, 5, 5]], **wrong)
    if "color" in wrong:
        with pytest.raises(ValueError, match="color must be"):
            classifier.logits([image], **wrong)


def test_unavailable_provider_is_refused(exported: Path) -> None:
    with pytest.raises(BundleError, match="NoSuchExecutionProvider"):
        Classifier(exported, providers=["NoSuchExecutionProvider"])


def test_allow_cpu_replaces_unavailable_provider(
    exported: Path,
) -> None:
    providers = ["NoSuchExecutionProvider"]
    assert Classifier(exported, providers=providers, allow_cpu=True).providers == [
        "CPUExecutionProvider"
    ]


def test_low_memory_does_not_change_logits(exported: Path, image_files: list[Path]) -> None:
    small = Classifier(exported, low_memory=True)
    assert np.allclose(
        small.logits(image_files), Classifier(exported).logits(image_files), atol=1e-6
    )
    level = small._session.get_session_options().graph_optimization_level
    assert level == ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED


@pytest.mark.parametrize(
    ("version", "name", "value"),
    [
        ("1.25.9", "session.intra_op.allow_spinning", "0"),
        ("1.26.0", "session.intra_op.spin_duration_us", "1"),
        ("2.0.1+cuda", "session.intra_op.spin_duration_us", "1"),
    ],
)
def test_session_threads_spin_briefly_or_not_at_all(
    exported: Path, monkeypatch: pytest.MonkeyPatch, version: str, name: str, value: str
) -> None:
    monkeypatch.setattr(ort, "__version__", version)
    assert (
        Classifier(exported)._session.get_session_options().get_session_config_entry(name) == value
    )


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system has no CPU affinity")
def test_threads_are_limited_to_allowed_cores(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def threads() -> int:
        return int(Classifier(exported)._session.get_session_options().intra_op_num_threads)

    monkeypatch.setattr(os, "cpu_count", lambda: 32)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5})
    assert threads() == 2
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(32)))
    assert threads() == 0  # onnxruntime's own choice


def test_provider_fallback_needs_allow_cpu(exported: Path) -> None:
    assert not Classifier(exported)._session._enable_fallback
    assert Classifier(exported, allow_cpu=True)._session._enable_fallback


def test_images_can_be_an_object_array(exported: Path, image_files: list[Path]) -> None:
    classifier = Classifier(exported)
    given: Any = np.array([str(path) for path in image_files], object)
    assert classifier.predict(given) == classifier.predict(image_files)


def test_providers_reports_provider_in_use(exported: Path) -> None:
    assert Classifier(exported).providers == ["CPUExecutionProvider"]


def test_released_memoryview_is_an_error_of_its_image(
    exported: Path, image_files: list[Path]
) -> None:
    released = memoryview(b"abc")
    released.release()
    classifier = Classifier(exported)
    wrong, good = classifier.predict([released, image_files[0]], on_error="return")
    assert isinstance(wrong, ImageError)
    assert "image 0 (counted from 0): operation forbidden on released memoryview" in str(wrong)
    assert not isinstance(good, ImageError)
    with pytest.raises(ImageError, match="image 0"):
        classifier.predict([released])


@pytest.mark.parametrize("kind", [io.BytesIO, lambda data: np.frombuffer(data, np.uint8)])
def test_single_stream_or_buffer_outside_of_a_list_is_refused(exported: Path, kind: Any) -> None:
    with pytest.raises(TypeError, match="for a single image, pass a list"):
        Classifier(exported).predict(kind(b"\x89PNG\n"))
