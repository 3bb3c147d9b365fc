import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cls_export import (
    BundleError,
    Calibration,
    LabelsMapping,
    Preprocessing,
    Provenance,
    ScoredMetric,
)
from cls_export.contract.bundle_layout import MAX_LABELS_BYTES

GOLDEN = Path(__file__).parents[1] / "golden"

TEMPERATURE = {"method": "temperature", "scale": [0.625], "bias": [], "images": 364}
VECTOR = {"method": "vector", "scale": [0.5, 0.75], "bias": [0.0, 0.25], "images": 364}
REJECT = {
    "threshold": 0.5,
    "by_class": {"23": 0.75},
    "wanted": "precision",
    "level": 0.99,
    "images": 364,
}


def test_first_four_keys_keep_their_shape(labels: LabelsMapping) -> None:
    mapping = json.loads(labels.to_json())
    assert mapping["num_classes"] == 4
    assert mapping["class_to_idx"]["23"] == 3
    assert mapping["idx_to_class"]["3"] == "23"
    assert mapping["normalization"] == {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]}


def test_schema_version_1_stays_readable() -> None:
    labels = LabelsMapping.load(GOLDEN / "labels_mapping_v1.json")
    assert labels.classes == ("", "0", "00", "23")
    assert labels.preprocessing.size == (12, 10)
    assert labels.provenance.metric == ScoredMetric(
        name="valid_top1", value=0.9375, epoch=6, step=126
    )
    check_rewritten(labels, GOLDEN / "labels_mapping_v1.json")


def test_schema_version_2_stays_readable() -> None:
    labels = LabelsMapping.load(GOLDEN / "labels_mapping_v2.json")
    assert labels.schema_version == 2
    assert labels.calibration == Calibration(method="temperature", scale=(0.625,), images=364)
    assert labels.reject is not None
    assert labels.reject.by_class == {"23": 0.75}
    check_rewritten(labels, GOLDEN / "labels_mapping_v2.json")


def test_schema_version_3_stays_readable() -> None:
    labels = LabelsMapping.load(GOLDEN / "labels_mapping_v3.json")
    assert labels.schema_version == 3
    assert labels.model_sha256 == "a1" * 32
    assert labels.golden_sha256 == "b2" * 32
    assert labels.to_json() == (GOLDEN / "labels_mapping_v3.json").read_text(encoding="utf-8")


def check_rewritten(labels: LabelsMapping, file: Path) -> None:
    """Check that a mapping is written as it was read, but for later keys of preprocessing."""
    recorded = json.loads(file.read_bytes())
    written = json.loads(labels.to_json())
    assert recorded.pop("preprocessing").items() <= written.pop("preprocessing").items()
    assert recorded == written


def legacy_json(**changes: Any) -> str:
    mapping = {
        "num_classes": 2,
        "class_to_idx": {"7": 0, "23": 1},
        "idx_to_class": {"0": "7", "1": "23"},
        "normalization": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]},
    }
    return json.dumps({**mapping, **changes})


def test_from_legacy_warns_about_assumptions() -> None:
    with pytest.warns(
        UserWarning,
        match="Assumed: 'squash' to 64 x 48 px; bilinear resampling; channels in R, G, B",
    ):
        labels = LabelsMapping.from_legacy(legacy_json(), size=(64, 48))
    assert labels.classes == ("7", "23")
    assert labels.preprocessing == Preprocessing(
        size=(64, 48), mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3)
    )
    assert labels.provenance == Provenance()
    written = json.loads(labels.to_json())
    assert {name: written[name] for name in json.loads(legacy_json())} == json.loads(legacy_json())


def test_from_legacy_uses_given_resize_settings() -> None:
    with pytest.warns(
        UserWarning, match="Assumed: channels in R, G, B order, normalized outside the graph"
    ):
        labels = LabelsMapping.from_legacy(
            legacy_json(), size=(64, 48), resize="shortest_edge", resize_to=80, resample="bicubic"
        )
    preprocessing = labels.preprocessing
    assert (preprocessing.resize, preprocessing.resize_to, preprocessing.resample) == (
        "shortest_edge",
        80,
        "bicubic",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Invalid JSON"),
        (legacy_json(num_classes=3), "num_classes is 3"),
        (legacy_json(idx_to_class={"0": "23", "1": "7"}), "not the inverse"),
        (legacy_json(surprise=1), "surprise"),
        (legacy_json(normalization={"mean": [0, 0, 0], "std": [0, 1, 1]}), "std"),
    ],
)
def test_from_legacy_refuses_invalid_mapping(text: str, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        LabelsMapping.from_legacy(text, size=(64, 48))


@given(names=st.sets(st.text(), min_size=1, max_size=20))
def test_any_class_names_survive_round_trip(names: set[str]) -> None:
    preprocessing = Preprocessing(size=(8, 8), mean=(0, 0, 0), std=(1, 1, 1))
    try:
        "".join(names).encode()
    except UnicodeEncodeError:  # a file cannot contain lone surrogates
        return
    labels = LabelsMapping.from_classes(
        {name: index for index, name in enumerate(sorted(names))},
        preprocessing,
        Provenance(run="r"),
    )
    assert LabelsMapping.from_json(labels.to_json()) == labels
    assert labels.classes == tuple(sorted(names))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"num_classes": 5},
            "num_classes is 5, so class_to_idx must contain each index of 0..4 once; it contains 4",
        ),
        ({"class_to_idx": {"": 0, "0": 1, "00": 2, "23": 2}}, "once"),
        ({"idx_to_class": {"0": "", "1": "00", "2": "0", "3": "23"}}, "not the inverse"),
        ({"labels_sha256": "0" * 64}, "not the hash of these classes"),
        ({"normalization": {"mean": [0, 0, 0], "std": [1, 1, 1]}}, "different mean or std"),
        ({"schema_version": 4}, "schema_version"),
        (
            {"schema_version": 1, "calibration": TEMPERATURE},
            "calibration and reject need schema_version 2",
        ),
        ({"calibration": VECTOR}, "calibration has 2 scales for 4 classes"),
        (
            {"reject": {**REJECT, "by_class": {"99": 0.5}}},
            "reject has a threshold for the unknown class '99'",
        ),
        ({"surprise": 1}, "surprise"),
        ({"preprocessing": {"size": [8, 8]}}, "preprocessing.mean"),
    ],
)
def test_contradictory_mapping_is_refused(
    labels: LabelsMapping, change: Any, expected: str
) -> None:
    text = json.dumps({**json.loads(labels.to_json()), **change})
    with pytest.raises(BundleError, match=expected):
        LabelsMapping.from_json(text, source="labels_mapping.json")


def test_long_text_is_refused_before_it_is_read() -> None:
    with pytest.raises(BundleError, match="the metadata is not a labels mapping: larger than"):
        LabelsMapping.from_json(" " * (MAX_LABELS_BYTES + 1), source="the metadata")


def test_file_hashes_need_each_other_and_version_3(labels: LabelsMapping) -> None:
    complete = json.loads(labels.with_file_hashes("a" * 64, "b" * 64).to_json())
    for change, message in (
        ({"golden_sha256": None}, "stated together"),
        ({"schema_version": 2}, "need schema_version 3"),
        ({"model_sha256": "A" * 64}, "model_sha256"),
        ({"model_sha256": "a" * 63}, "model_sha256"),
    ):
        with pytest.raises(BundleError, match=message):
            LabelsMapping.from_json(json.dumps({**complete, **change}))


def test_missing_or_malformed_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"gone.json: cannot be read"):
        LabelsMapping.load(tmp_path / "gone.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(BundleError, match=r"broken.json is not a labels mapping"):
        LabelsMapping.load(tmp_path / "broken.json")


def test_save_leaves_only_the_file(labels: LabelsMapping, tmp_path: Path) -> None:
    labels.save(tmp_path / "labels_mapping.json")
    assert [path.name for path in tmp_path.iterdir()] == ["labels_mapping.json"]
    assert LabelsMapping.load(tmp_path / "labels_mapping.json") == labels


@pytest.mark.parametrize("name", ["\ud800", "a\udce9", "\udc00\ud800"])
def test_class_name_with_a_lone_surrogate_is_refused(labels: LabelsMapping, name: str) -> None:
    with pytest.raises(ValueError, match=r"class '.*\\ud.*' is not valid Unicode .* rename"):
        LabelsMapping.from_classes({name: 0, "b": 1}, labels.preprocessing)
    content = labels.model_dump()
    content |= {
        "num_classes": 1,
        "class_to_idx": {name: 0},
        "idx_to_class": {"0": name},
    }
    with pytest.raises(ValueError, match=r"is not valid Unicode"):
        LabelsMapping.model_validate(content)
