"""The model card states what is known, says what is unknown, and belongs to its bundle."""

import math
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cls_export import (
    BundleError,
    Calibration,
    Classifier,
    LabelsMapping,
    Preprocessing,
    Provenance,
    Reject,
    ScoredMetric,
    verify_bundle,
)
from cls_export.bundle.model_card import CardFigure, build_model_card, write_model_card
from cls_export.bundle.staging import staged_bundle
from cls_export.cli.main import main

FIGURES = [
    CardFigure("test", "top-1 accuracy", 0.8904, 0.854, 0.9182, 364),
    CardFigure("test", "macro F1", 0.861, None, None, 364),
]


@pytest.fixture
def bundle_with_card(current: Path, tmp_path: Path) -> Path:
    labels = LabelsMapping.load(current / "labels_mapping.json").without_file_hashes()
    target = tmp_path / "with_card"
    with staged_bundle(target, labels) as draft:
        shutil.copytree(current, draft, dirs_exist_ok=True)
        write_model_card(draft, labels, FIGURES)
    return target


def test_unknown_facts_are_said_to_be_unknown(labels: LabelsMapping) -> None:
    card = build_model_card(labels)
    assert "None: no evaluation was given at export." in card
    assert "Run: unknown: not stated at export" in card
    assert "Commit of the training code: unknown" in card
    assert "Fingerprint of the training data: unknown" in card
    assert "Weights: unknown" in card
    assert "No accuracy with a confidence interval is known." in card
    assert "%" not in card


def test_figures_have_their_intervals_and_counts(labels: LabelsMapping) -> None:
    card = build_model_card(labels, FIGURES, note="Converted.")
    assert "| `test` | `top-1 accuracy` | 89.0% | 85.4% to 91.8% | 364 |" in card
    assert "| `test` | `macro F1` | 86.1% | unknown | 364 |" in card
    assert "\n\nConverted.\n\n" in card
    assert "No accuracy" not in card


@pytest.mark.parametrize(
    ("value", "low", "high", "cells"),
    [
        (math.nan, math.nan, math.nan, "undefined | unknown |"),
        (0.5, math.nan, 0.6, "50.0% | unknown |"),
        (0.5, -math.inf, math.inf, "50.0% | unknown |"),
        (1 / 3, 1 / 3, 1 / 3, "33.3% | unknown: too few different results |"),
        (0.0, 0.0, 0.01, "0.0% | 0.0% to 1.0% |"),
    ],
)
def test_undefined_figures_are_said_to_be_unknown(
    value: float, low: float, high: float, cells: str, labels: LabelsMapping
) -> None:
    card = build_model_card(labels, [CardFigure("test", "macro F1", value, low, high, 12)])
    assert f"| `test` | `macro F1` | {cells} 12 |" in card


def test_undefined_metric_of_the_weights_is_said_to_be_undefined(
    preprocessing: Preprocessing,
) -> None:
    metric = ScoredMetric(name="valid_acc", value=math.nan, epoch=0, step=1)
    origin = Provenance(weights="raw", metric=metric)
    card = build_model_card(LabelsMapping.from_classes({"a": 0}, preprocessing, origin))
    assert "as trained, selected by `valid_acc` = undefined in epoch 1" in card


def test_hashes_are_complete(preprocessing: Preprocessing) -> None:
    origin = Provenance(code_commit=f"{'c' * 40}-dirty", data_fingerprint="f" * 64)
    card = build_model_card(LabelsMapping.from_classes({"a": 0}, preprocessing, origin))
    assert f"`{'c' * 40}-dirty`" in card
    assert f"`{'f' * 64}`" in card


def test_card_warns_that_the_bundle_contains_images(labels: LabelsMapping) -> None:
    assert "Whoever gets the bundle gets them." in build_model_card(labels)


@pytest.mark.parametrize(
    "note",
    [
        "<script>alert(1)</script>",
        "\\<img src=x onerror=alert(1) y=>",
        "&lt;script&gt;",
        "[a](javascript:x) ![b](x) <http://x>",
        "*a* _b_ `c` ~~d~~ | # e",
        "\n\n# heading",
    ],
)
def test_notes_are_text_without_markup(note: str, labels: LabelsMapping) -> None:
    noted = labels.model_copy(update={"confidence_notes": (note,)})
    line = build_model_card(noted).partition("Note of the calibration: ")[2].partition("\n")[0]
    without_escapes = re.sub(r"\\[!-/:-@\[-`{-~]", "", line)
    assert not set(without_escapes) & set("<>&[]*_`|#!~\\")
    assert re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", line).split() == f"{note}.".split()


def test_card_states_what_the_mapping_knows(preprocessing: Preprocessing) -> None:
    metric = ScoredMetric(name="valid_acc", value=0.9, epoch=11, step=100)
    origin = Provenance(
        run="r18", code_commit="abc-dirty", data_fingerprint="f00d", weights="ema", metric=metric
    )
    labels = LabelsMapping.from_classes({"0": 0, "23": 1}, preprocessing, origin).model_copy(
        update={
            "calibration": Calibration(method="temperature", scale=(0.5,), images=77),
            "reject": Reject(threshold=0.6, wanted="precision", level=0.95, images=77),
        }
    )
    card = build_model_card(labels, FIGURES)
    for fact in (
        "# Model card: `r18`",
        "`abc-dirty`",
        "`f00d`",
        "an exponential moving average, selected by `valid_acc` = 0.9000 in epoch 12",
        "The epoch of the weights was chosen by the results on `valid`, so the figures of `valid`",
        "`0`, `23`",
        "12 x 10 px",
        "mean 0.5, 0.4, 0.3",
        "Calibrated by temperature scaling on 77 images.",
        "below a confidence of 0.600 are rejected; the threshold was chosen for precision 95.0%",
    ):
        assert fact in card, fact


def test_long_lists_of_classes_are_shortened(preprocessing: Preprocessing) -> None:
    classes = {f"{number:04d}": number for number in range(1_000)}
    card = build_model_card(LabelsMapping.from_classes(classes, preprocessing))
    assert "`0099`, and 900 more in `labels_mapping.json`" in card
    assert "0100" not in card


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=70))
def test_names_from_data_add_no_structure_to_the_card(text: str) -> None:
    preprocessing = Preprocessing(size=(12, 10), mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))

    def count_lines(name: str) -> int:
        labels = LabelsMapping.from_classes({name: 0}, preprocessing, Provenance(run=name))
        noted = labels.model_copy(update={"confidence_notes": (f"a {name}",)})
        figure = CardFigure(name, "accuracy", 0.5, 0.4, 0.6, 10)
        return len(build_model_card(noted, [figure]).splitlines())

    assert count_lines(text) == count_lines("plain")


@pytest.mark.parametrize("name", ["a`b", "``", "`", "|", "<img src=x>", "[a](b)"])
def test_markup_in_names_stays_text(name: str, preprocessing: Preprocessing) -> None:
    labels = LabelsMapping.from_classes({name: 0}, preprocessing)
    line = build_model_card(labels).partition("## Classes\n\n")[2].partition("\n")[0]
    longest = max([len(run) for run in re.findall("`+", name)], default=0)
    fence = "`" * (longest + 1)
    space = " " if longest else ""
    assert line == f"{fence}{space}{name}{space}{fence}"


def test_bundle_with_card_is_verified_and_used(bundle_with_card: Path) -> None:
    assert verify_bundle(bundle_with_card).passed
    labels = LabelsMapping.load(bundle_with_card / "labels_mapping.json")
    assert labels.card_sha256 is not None
    assert Classifier(bundle_with_card).labels == labels.without_file_hashes()


@pytest.mark.parametrize("change", ["other", "missing", "pointer", "large"])
def test_changed_card_is_named(
    change: str, bundle_with_card: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = bundle_with_card / "README.md"
    content = {
        "other": card.read_bytes().replace(b"89.0%", b"99.0%"),
        "pointer": b"version https://git-lfs.github.com/spec/v1\n",
        "large": bytes(2**20 + 1),
    }
    card.unlink()
    if change != "missing":
        card.write_bytes(content[change])
    with pytest.raises(BundleError, match=r"README\.md"):
        verify_bundle(bundle_with_card)
    assert main(["verify", str(bundle_with_card)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    Classifier(bundle_with_card)  # predictions do not need it


def test_line_ends_that_git_changed_are_harmless(bundle_with_card: Path) -> None:
    card = bundle_with_card / "README.md"
    card.write_bytes(card.read_bytes().replace(b"\n", b"\r\n"))
    assert verify_bundle(bundle_with_card).passed


@pytest.mark.parametrize("version", [1, 2, 3])
def test_older_bundle_is_valid_without_a_card_and_with_notes_in_its_place(
    version: int, tmp_path: Path
) -> None:
    golden = Path(__file__).parents[1] / f"golden/bundle_v{version}"
    bundle = Path(shutil.copytree(golden, tmp_path / "bundle"))
    assert verify_bundle(bundle).passed
    (bundle / "README.md").write_text("our notes")
    assert verify_bundle(bundle).passed


def test_hash_of_a_card_needs_those_of_the_other_files(labels: LabelsMapping) -> None:
    text = labels.to_json().replace(
        '"schema_version"', f'"card_sha256": "{"a" * 64}", "schema_version"'
    )
    with pytest.raises(BundleError, match="card_sha256 needs model_sha256"):
        LabelsMapping.from_json(text)


def test_folder_with_only_a_readme_is_not_replaced(current: Path, tmp_path: Path) -> None:
    target = tmp_path / "project"
    target.mkdir()
    (target / "README.md").write_text("my project")
    labels = LabelsMapping.load(current / "labels_mapping.json").without_file_hashes()
    with (
        pytest.raises(BundleError, match=r"contains 'README\.md', so it is not a bundle"),
        staged_bundle(target, labels),
    ):
        pass
    assert (target / "README.md").read_text() == "my project"


def test_migrated_and_converted_bundles_get_their_own_card(
    current: Path, image_files: list[Path], tmp_path: Path
) -> None:
    pytest.importorskip("onnx")
    from cls_export.convert.float16 import convert_to_float16

    convert_to_float16(current, tmp_path / "float16", image_files)
    card = (tmp_path / "float16/README.md").read_text()
    assert "Converted to float16: 100.0% of 5 images get the class of the float32 model" in card
    assert verify_bundle(tmp_path / "float16").passed
