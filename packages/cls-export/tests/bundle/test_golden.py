import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cls_export import BundleError, LabelsMapping, preprocessing, verify_bundle
from cls_export.bundle.golden import allowed_difference
from cls_export.contract.bundle_layout import METADATA_KEY


def edit(bundle: Path, **changes: Any) -> None:
    """Change the first golden case."""
    path = bundle / "golden" / "golden.json"
    golden = json.loads(path.read_bytes())
    golden["cases"][0].update(changes)
    path.write_text(json.dumps(golden))


def test_a_fresh_bundle_passes(exported: Path) -> None:
    report = verify_bundle(exported)
    assert report.passed
    assert report.images == 5
    assert 0 <= report.max_difference < 1e-5


def test_a_changed_image_fails_at_the_file(bundle: Path) -> None:
    with (bundle / "golden" / "001.png").open("ab") as stream:
        stream.write(b"\0")
    assert verify_bundle(bundle).failures == (
        "001.png: file: its bytes are not those that training read",
    )


def test_a_missing_image_fails_at_the_file(bundle: Path) -> None:
    (bundle / "golden" / "001.png").unlink()
    assert verify_bundle(bundle).failures[0].startswith("001.png: file: cannot be read")


@pytest.mark.parametrize(
    ("change", "stage"),
    [
        ({"pixels_sha256": "0" * 64}, "decode or resize"),
        ({"logits": [9.0, 0.0, 0.0, 0.0]}, "logits: differ by"),
        ({"logits": [9.0]}, "logits: 4 classes, training had 1"),
        ({"label": "another"}, "label"),
    ],
)
def test_the_first_differing_stage_is_named(bundle: Path, change: Any, stage: str) -> None:
    edit(bundle, **change)
    report = verify_bundle(bundle)
    assert not report.passed
    assert len(report.failures) == 1
    assert report.failures[0].startswith(f"000.png: {stage}")


@pytest.fixture
def newest(tmp_path: Path) -> Path:
    """A copy of a bundle whose golden set keeps every stage."""
    return Path(
        shutil.copytree(Path(__file__).parents[1] / "golden/bundle_v2", tmp_path / "newest")
    )


def stages(bundle: Path) -> set[str]:
    report = verify_bundle(bundle)
    assert len(report.failures) == 5
    return {failure.split(": ")[1] for failure in report.failures}


def test_every_stage_of_a_fresh_bundle_is_that_of_training(newest: Path) -> None:
    assert verify_bundle(newest).passed


def test_swapped_channels_fail_at_the_decoding(
    newest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = preprocessing._decode

    def swapped(source: Any) -> Image.Image:
        return Image.fromarray(np.asarray(decode(source))[..., ::-1].copy())

    monkeypatch.setattr(preprocessing, "_decode", swapped)
    assert stages(newest) == {"decode"}


@pytest.mark.parametrize("resample", ["NEAREST", "BOX", "HAMMING", "BICUBIC", "LANCZOS"])
def test_another_resampling_fails_at_the_resize(
    newest: Path, monkeypatch: pytest.MonkeyPatch, resample: str
) -> None:
    monkeypatch.setitem(preprocessing._RESAMPLING, "bilinear", Image.Resampling[resample])
    assert stages(newest) == {"resize"}


def rewritten(bundle: Path, change: Callable[[Any], None]) -> None:
    """Change the mapping inside the model and beside it alike, so that they agree."""
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
def test_a_changed_constant_fails_at_the_normalisation(newest: Path, constant: str) -> None:
    def change(mapping: Any) -> None:
        for part in (mapping["normalization"], mapping["preprocessing"]):
            part[constant][1] += 0.01

    rewritten(newest, change)
    assert stages(newest) == {"normalize"}


def test_a_changed_size_of_the_crop_fails_at_the_resize(newest: Path) -> None:
    rewritten(newest, lambda mapping: mapping["preprocessing"].update(resize="letterbox"))
    assert stages(newest) == {"resize"}


def test_a_changed_weight_fails_at_the_logits(newest: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(newest / "model.onnx")
    bias = next(each for each in model.graph.initializer if list(each.dims) == [4])
    bias.CopyFrom(
        onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32(0.01), bias.name)
    )
    onnx.save_model(model, newest / "model.onnx")
    assert stages(newest) == {"logits"}


def test_swapped_classes_fail_at_the_label(newest: Path) -> None:
    before = LabelsMapping.load(newest / "labels_mapping.json")
    answers = {
        case["label"] for case in json.loads((newest / "golden/golden.json").read_bytes())["cases"]
    }
    (answer,) = answers
    other = next(name for name in before.classes if name not in answers)

    def swap(mapping: Any) -> None:
        indices = mapping["class_to_idx"]
        indices[answer], indices[other] = indices[other], indices[answer]
        swapped = LabelsMapping.from_classes(indices, before.preprocessing)
        mapping.update(json.loads(swapped.to_json()))

    rewritten(newest, swap)
    assert stages(newest) == {"label"}


@pytest.mark.parametrize(
    ("largest", "allowed"), [(0.0, 1e-4), (0.5, 1e-4), (1.0, 1e-4), (-20.0, 2e-3)]
)
def test_what_rounding_may_change_grows_with_the_logits(largest: float, allowed: float) -> None:
    assert allowed_difference(np.array([[0.1, largest, 0.3]], np.float32)) == pytest.approx(allowed)


@pytest.mark.parametrize("change", [{"file": "../model.onnx"}, {"surprise": 1}])
def test_a_golden_set_out_of_its_schema_is_refused(bundle: Path, change: Any) -> None:
    edit(bundle, **change)
    with pytest.raises(
        BundleError, match=r"not a golden set of schema version 1 or 2: cases\.0\.[^\n]*$"
    ):
        verify_bundle(bundle)


def test_nothing_to_verify_against_is_no_pass(bundle: Path) -> None:
    (bundle / "golden" / "golden.json").write_text('{"schema_version": 1, "cases": []}')
    with pytest.raises(BundleError, match="lists no image"):
        verify_bundle(bundle)
    with pytest.raises(BundleError, match="no golden/ beside the model"):
        verify_bundle(bundle / "model.onnx")
