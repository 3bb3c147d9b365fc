import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cls_export import BundleError, LabelsMapping, verify_bundle
from cls_export.bundle.golden import allowed_difference
from cls_export.contract import preprocessing
from cls_export.contract.bundle_layout import METADATA_KEY


def edit_first_case(bundle: Path, **changes: Any) -> None:
    """Change the first golden case."""
    path = bundle / "golden" / "golden.json"
    golden = json.loads(path.read_bytes())
    golden["cases"][0].update(changes)
    path.write_text(json.dumps(golden))


def test_golden_bundle_passes(exported: Path) -> None:
    report = verify_bundle(exported)
    assert report.passed
    assert report.images == 5
    assert 0 <= report.max_difference < 1e-5


def test_changed_image_fails_at_file(bundle: Path) -> None:
    with (bundle / "golden" / "001.png").open("ab") as stream:
        stream.write(b"\0")
    (failure,) = verify_bundle(bundle).failures
    assert failure.startswith("001.png: file: ")
    assert failure.endswith("001.png: the content differs from its recorded SHA-256")


def test_missing_image_fails_at_file(bundle: Path) -> None:
    (bundle / "golden" / "001.png").unlink()
    (failure,) = verify_bundle(bundle).failures
    assert failure.startswith("001.png: file: ")
    assert "001.png: cannot be read (No such file" in failure


@pytest.mark.parametrize(
    ("change", "stage"),
    [
        ({"pixels_sha256": "0" * 64}, "decode or resize"),
        ({"logits": [9.0, 0.0, 0.0, 0.0]}, "logits: differ by"),
        ({"logits": [9.0]}, "logits: got 4 classes, expected 1"),
        ({"label": "another"}, "label"),
    ],
)
def test_first_differing_stage_is_named(bundle: Path, change: Any, stage: str) -> None:
    edit_first_case(bundle, **change)
    report = verify_bundle(bundle)
    assert not report.passed
    assert len(report.failures) == 1
    assert report.failures[0].startswith(f"000.png: {stage}")


@pytest.fixture
def newest(tmp_path: Path) -> Path:
    """A copy of a bundle whose golden set has the hashes of every stage."""
    return Path(
        shutil.copytree(Path(__file__).parents[1] / "golden/bundle_v2", tmp_path / "newest")
    )


def failing_stages(bundle: Path) -> set[str]:
    report = verify_bundle(bundle)
    assert len(report.failures) == 5
    return {failure.split(": ")[1] for failure in report.failures}


def test_golden_bundle_with_all_stages_passes(newest: Path) -> None:
    assert verify_bundle(newest).passed


def test_swapped_channels_fail_at_decode(newest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decode = preprocessing.decode_image

    def swapped(*arguments: Any) -> Image.Image:
        return Image.fromarray(np.asarray(decode(*arguments))[..., ::-1].copy())

    monkeypatch.setattr(preprocessing, "decode_image", swapped)
    assert failing_stages(newest) == {"decode"}


@pytest.mark.parametrize("resample", ["NEAREST", "BOX", "HAMMING", "BICUBIC", "LANCZOS"])
def test_other_resampling_fails_at_resize(
    newest: Path, monkeypatch: pytest.MonkeyPatch, resample: str
) -> None:
    monkeypatch.setitem(preprocessing._RESAMPLING, "bilinear", Image.Resampling[resample])
    assert failing_stages(newest) == {"resize"}


def rewrite_mapping(bundle: Path, change: Callable[[Any], None]) -> None:
    """Change the mapping both inside the model and beside it."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(bundle / "model.onnx")
    mapping = json.loads((bundle / "labels_mapping.json").read_bytes())
    change(mapping)
    text = json.dumps(mapping)
    LabelsMapping.from_json(text)
    onnx.helper.set_model_props(model, {METADATA_KEY: text})
    onnx.save_model(model, bundle / "model.onnx")
    (bundle / "labels_mapping.json").write_text(text)


@pytest.mark.parametrize("constant", ["mean", "std"])
def test_changed_mean_or_std_fails_at_normalize(newest: Path, constant: str) -> None:
    def change(mapping: Any) -> None:
        for section in (mapping["normalization"], mapping["preprocessing"]):
            section[constant][1] += 0.01

    rewrite_mapping(newest, change)
    assert failing_stages(newest) == {"normalize"}


def test_other_resize_mode_fails_at_resize(newest: Path) -> None:
    rewrite_mapping(newest, lambda mapping: mapping["preprocessing"].update(resize="letterbox"))
    assert failing_stages(newest) == {"resize"}


def test_changed_weight_fails_at_logits(newest: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(newest / "model.onnx")
    bias = next(tensor for tensor in model.graph.initializer if list(tensor.dims) == [4])
    bias.CopyFrom(
        onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32(0.01), bias.name)
    )
    onnx.save_model(model, newest / "model.onnx")
    assert failing_stages(newest) == {"logits"}


def test_swapped_classes_fail_at_label(newest: Path) -> None:
    before = LabelsMapping.load(newest / "labels_mapping.json")
    labels = {
        case["label"] for case in json.loads((newest / "golden/golden.json").read_bytes())["cases"]
    }
    (label,) = labels
    other = next(name for name in before.classes if name not in labels)

    def swap(mapping: Any) -> None:
        indices = mapping["class_to_idx"]
        indices[label], indices[other] = indices[other], indices[label]
        swapped = LabelsMapping.from_classes(indices, before.preprocessing)
        mapping.update(json.loads(swapped.to_json()), schema_version=2)

    rewrite_mapping(newest, swap)
    assert failing_stages(newest) == {"label"}


@pytest.mark.parametrize(
    ("largest", "allowed"), [(0.0, 1e-4), (0.5, 1e-4), (1.0, 1e-4), (-20.0, 2e-3)]
)
def test_allowed_difference_grows_with_logits(largest: float, allowed: float) -> None:
    assert allowed_difference(np.array([[0.1, largest, 0.3]], np.float32)) == pytest.approx(allowed)


@pytest.mark.parametrize("change", [{"file": "../model.onnx"}, {"surprise": 1}])
def test_golden_set_that_violates_schema_is_refused(bundle: Path, change: Any) -> None:
    edit_first_case(bundle, **change)
    with pytest.raises(
        BundleError, match=r"not a golden set of schema version 1 or 2: cases\.0\.[^\n]*$"
    ):
        verify_bundle(bundle)


def test_verify_needs_golden_images(bundle: Path) -> None:
    (bundle / "golden" / "golden.json").write_text('{"schema_version": 1, "cases": []}')
    with pytest.raises(BundleError, match="lists no image"):
        verify_bundle(bundle)
    with pytest.raises(BundleError, match="cannot be verified without golden images"):
        verify_bundle(bundle / "model.onnx")
