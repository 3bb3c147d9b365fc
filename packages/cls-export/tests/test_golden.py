import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cls_export import BundleError, verify_bundle
from cls_export.golden import allowed_difference


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
    assert verify_bundle(bundle).failures == ("001.png: file: its bytes are not those that training read",)


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


@pytest.mark.parametrize(("largest", "allowed"), [(0.0, 1e-4), (0.5, 1e-4), (1.0, 1e-4), (-20.0, 2e-3)])
def test_what_rounding_may_change_grows_with_the_logits(largest: float, allowed: float) -> None:
    assert allowed_difference(np.array([[0.1, largest, 0.3]], np.float32)) == pytest.approx(allowed)


@pytest.mark.parametrize("change", [{"file": "../model.onnx"}, {"surprise": 1}])
def test_a_golden_set_out_of_its_schema_is_refused(bundle: Path, change: Any) -> None:
    edit(bundle, **change)
    with pytest.raises(BundleError, match="not a golden set of schema version 1"):
        verify_bundle(bundle)


def test_nothing_to_verify_against_is_no_pass(bundle: Path) -> None:
    (bundle / "golden" / "golden.json").write_text('{"schema_version": 1, "cases": []}')
    with pytest.raises(BundleError, match="lists no image"):
        verify_bundle(bundle)
    with pytest.raises(BundleError, match="no golden/ beside the model"):
        verify_bundle(bundle / "model.onnx")
