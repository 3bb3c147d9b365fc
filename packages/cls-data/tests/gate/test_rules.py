import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from cls_data import GateConfig, check
from cls_data.gate.config import RULE_NAMES
from cls_data.gate.inputs import Finding
from cls_data.gate.rules import RULES


def texts(findings: Sequence[Finding]) -> list[str]:
    return [finding.text for finding in findings]


def at(split: str, *lines: int) -> tuple[str, ...]:
    return tuple(f"{split}/annotations.jsonl:{line}" for line in lines)


def encoded(image: Image.Image, kind: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def test_every_rule_has_a_policy_and_a_function() -> None:
    assert tuple(RULES) == RULE_NAMES
    assert len(RULE_NAMES) == 22


@pytest.mark.parametrize("policy", ["error", "warn"])
def test_clean_data_has_no_findings(
    tmp_path: Path, write_set: Any, clean: dict[str, list[Any]], preprocessing: Any, policy: Any
) -> None:
    report = check(
        write_set(tmp_path, clean), preprocessing, GateConfig(**dict.fromkeys(RULE_NAMES, policy))
    )
    assert report.findings == {}
    assert report.row_counts == {"train": 24, "valid": 4, "test": 4}


def test_schema_errors_reports_malformed_rows(find: Any) -> None:
    findings = find(
        "schema_errors", train=[b'{"image": "0.png", "suffix": 23}'], valid=[b"nonsense"]
    )
    assert texts(findings) == [
        "train/annotations.jsonl:25: suffix is the number 23, but a class name is a string; "
        'write "23"',
        "valid/annotations.jsonl:5: not valid JSON (expected ident at line 1 column 2): nonsense",
    ]
    assert [finding.quarantine for finding in findings] == [at("train", 25), at("valid", 5)]


def test_image_files_reports_missing_files_and_paths_outside_the_root(
    find: Any, tmp_path: Path
) -> None:
    rows = [("gone.png", None, "1"), ("../../outside.png", None, "1"), ("/etc/hostname", None, "1")]
    findings = find("image_files", train=rows)
    assert [finding.quarantine for finding in findings] == [
        at("train", line) for line in (25, 26, 27)
    ]
    for finding, reason in zip(
        findings, ("does not exist", "leaves the data root", "must be a path rel"), strict=True
    ):
        assert finding.text.startswith(f"{finding.quarantine[0]}: image ")
        assert reason in finding.text


def test_damaged_images_reports_truncated_empty_and_corrupt_files(find: Any, picture: Any) -> None:
    whole = encoded(picture(0), "JPEG")
    overwritten = whole[:300] + bytes(len(whole) - 300)
    rows = [
        ("a.jpg", whole[:-9], "1"),
        ("b.jpg", b"", "1"),
        ("c.jpg", b"text", "2"),
        ("d.jpg", overwritten, "1"),
    ]
    findings = find("damaged_images", train=rows)
    assert sorted(finding.quarantine for finding in findings) == [
        at("train", line) for line in (25, 26, 27, 28)
    ]
    (empty,) = (text for text in texts(findings) if "train/b.jpg" in text)
    assert empty.startswith(
        "train/annotations.jsonl:26: train/b.jpg: cannot be decoded (empty; copy or download"
    )
    assert all(not finding.files for finding in findings)


def test_huge_images_reports_sizes_in_headers(find: Any, bomb: bytes) -> None:
    (finding,) = find("huge_images", valid=[("b.png", bomb, "1")])
    assert finding.text == (
        "valid/annotations.jsonl:5: valid/b.png: 15000x15000 px is over the limit of "
        "200,000,000 pixels (preprocessing.max_pixels); shrink the image, raise the limit, or "
        "remove the row"
    )
    assert finding.quarantine == at("valid", 5)


@pytest.fixture
def bomb() -> bytes:
    return encoded(Image.new("1", (15_000, 15_000)), "PNG")


def test_damaged_images_ignores_huge_images(find: Any, bomb: bytes) -> None:
    assert not find("damaged_images", valid=[("b.png", bomb, "1")])


def test_wrong_extensions_reports_other_formats(find: Any, picture: Any) -> None:
    rows = [
        ("a.jpg", encoded(picture(0), "GIF"), "1"),
        ("b.JPG", encoded(picture(1), "JPEG"), "1"),
        ("c.tif", encoded(picture(2), "TIFF"), "1"),
        ("d", encoded(picture(3), "PNG"), "1"),
    ]
    findings = find("wrong_extensions", train=[*rows, ("a.jpg", None, "1")])
    assert texts(findings) == [
        "train/annotations.jsonl:25: train/a.jpg: a GIF file with the extension '.jpg'"
        " (also train/annotations.jsonl:29); rename the file",
        "train/annotations.jsonl:28: train/d: a PNG file with the extension ''; rename the file",
    ]
    assert findings[0].quarantine == at("train", 25, 29)


@pytest.mark.parametrize("kind", ["same file", "same bytes", "same pixels"])
def test_conflicting_labels_reports_two_labels_of_one_image(
    find: Any, picture: Any, kind: str
) -> None:
    other = {
        "same file": ("a.png", None),
        "same bytes": ("b.png", picture(0)),
        "same pixels": ("b.bmp", picture(0)),
    }
    (finding,) = find("conflicting_labels", train=[("a.png", picture(0), "1"), (*other[kind], "2")])
    assert finding.text == (
        "train/annotations.jsonl:25: train/a.png: one image with the labels '1', '2'"
        " (also train/annotations.jsonl:26); keep the correct label"
    )
    assert finding.quarantine == finding.sources == at("train", 25, 26)
    assert len(finding.files) == (1 if kind == "same file" else 2)


def test_conflicting_labels_compares_splits(find: Any, picture: Any) -> None:
    (finding,) = find(
        "conflicting_labels", train=[("a.png", picture(0), "1")], test=[("a.png", picture(0), "2")]
    )
    assert finding.quarantine == (*at("train", 25), *at("test", 5))


def test_conflicting_labels_quarantines_only_empty_labels_next_to_one_name(
    find: Any, picture: Any
) -> None:
    rows = [
        ("a.png", picture(0), "1"),
        ("b.png", picture(0), ""),
        ("a.png", None, "1"),
        ("b.png", None, ""),
    ]
    (finding,) = find("conflicting_labels", train=rows)
    assert "with the labels '', '1'" in finding.text
    assert finding.quarantine == at("train", 26, 28)


def test_conflicting_labels_quarantines_all_rows_with_two_names(find: Any, picture: Any) -> None:
    (finding,) = find(
        "conflicting_labels", train=[("a.png", picture(0), label) for label in ("1", "", "2")]
    )
    assert finding.quarantine == at("train", 25, 26, 27)


def test_conflicting_labels_ignores_equal_labels(find: Any, picture: Any) -> None:
    assert not find(
        "conflicting_labels", train=[("a.png", picture(0), "1"), ("b.png", picture(0), "1")]
    )


def test_conflicting_labels_ignores_images_that_differ_in_one_level(
    find: Any, picture: Any
) -> None:
    other = picture(0)
    red, green, blue = other.getpixel((3, 3))
    other.putpixel((3, 3), (red ^ 1, green, blue))
    assert not find("conflicting_labels", train=[("a.png", picture(0), "1"), ("b.png", other, "2")])


@pytest.mark.parametrize(
    ("splits", "quarantined"),
    [
        (("train", "test"), ["train"]),
        (("train", "valid"), ["train"]),
        (("valid", "test"), ["valid"]),
        (("train", "valid", "test"), ["train", "valid"]),
    ],
)
def test_duplicates_across_splits_keeps_the_copies_of_the_last_split(
    find: Any, picture: Any, splits: Sequence[str], quarantined: Sequence[str]
) -> None:
    twice = [("a.png", picture(0), "1"), ("a.bmp", picture(0), "1")]
    (finding,) = find("duplicates_across_splits", **dict.fromkeys(splits, twice))
    assert f": one image in {' and '.join(splits)} (also " in finding.text
    lines = {"train": (25, 26), "valid": (5, 6), "test": (5, 6)}
    assert finding.quarantine == tuple(
        source for split in quarantined for source in at(split, *lines[split])
    )


def test_duplicates_within_split_keeps_the_first_row(find: Any, picture: Any) -> None:
    rows = [("a.png", picture(0), "1"), ("b.bmp", picture(0), "1"), ("a.png", None, "1")]
    findings = find("duplicates_within_split", train=rows, test=rows[:1])
    assert texts(findings) == [
        "train/annotations.jsonl:25: train/a.png: one image 3 times in train"
        " (also train/annotations.jsonl:26, train/annotations.jsonl:27); keep one row"
    ]
    assert findings[0].quarantine == at("train", 26, 27)


def test_duplicates_within_split_ignores_conflicting_labels(find: Any, picture: Any) -> None:
    assert not find(
        "duplicates_within_split", train=[("a.png", picture(0), "1"), ("b.png", picture(0), "2")]
    )


def brighter(image: Image.Image, levels: int) -> Image.Image:
    return Image.fromarray(np.clip(np.asarray(image).astype(int) + levels, 0, 255).astype(np.uint8))


def test_near_duplicates_across_splits_reports_similar_images(find: Any, picture: Any) -> None:
    near = brighter(picture(0), 2)
    (finding,) = find(
        "near_duplicates_across_splits",
        train=[("a.png", picture(0), "1")],
        valid=[("a.png", near, "2")],
    )
    assert finding.text == (
        "train/annotations.jsonl:25: train/a.png: near-duplicates in train and valid with the"
        " labels '1', '2' (also valid/annotations.jsonl:5); keep them in one split"
    )
    assert finding.quarantine == at("train", 25)


def test_near_duplicates_within_split_reports_similar_images(find: Any, picture: Any) -> None:
    rows = [
        ("a.png", picture(0), "1"),
        ("b.png", brighter(picture(0), 2), "1"),
        ("c.jpg", picture(0), "1"),
    ]
    (finding,) = find("near_duplicates_within_split", valid=rows)
    assert finding.text.startswith(
        "valid/annotations.jsonl:5: valid/a.png: near-duplicates in valid (also "
    )
    assert finding.quarantine == at("valid", 6, 7)
    assert len(finding.files) == 3


def test_near_duplicates_across_splits_includes_all_rows_of_an_image(
    find: Any, picture: Any
) -> None:
    # The first image of train is also in test; the second image of train is similar to both.
    train = [("a.png", picture(0), "1"), ("b.png", brighter(picture(0), 2), "1")]
    test = [("z.png", picture(0), "1")]
    (finding,) = find("near_duplicates_across_splits", train=train, test=test)
    assert finding.sources == (*at("train", 25), *at("test", 5), *at("train", 26))
    assert not find("near_duplicates_within_split", train=train, test=test)


def test_near_duplicates_ignores_equal_images(find: Any, picture: Any) -> None:
    both = {"train": [("a.png", picture(0), "1")], "test": [("b.bmp", picture(0), "1")]}
    assert not find("near_duplicates_across_splits", **both)
    assert not find(
        "near_duplicates_within_split", train=[*both["train"], ("b.bmp", picture(0), "1")]
    )


def test_near_duplicates_respects_the_level_threshold(find: Any, picture: Any) -> None:
    rows = {
        "train": [("a.png", picture(0), "1")],
        "valid": [("a.png", brighter(picture(0), 8), "1")],
    }
    assert not find("near_duplicates_across_splits", **rows)
    assert find("near_duplicates_across_splits", settings={"near_duplicate_levels": 9}, **rows)


def test_groups_across_splits_reports_row_counts(find: Any, picture: Any) -> None:
    def rows(first: int, *groups: str | None) -> list[Any]:
        return [
            (f"g{row}.png", picture(first + row), "1", {"group": name})
            for row, name in enumerate(groups)
        ]

    added = {
        "train": rows(0, "game 1", "game 2", None),
        "valid": rows(10, "game 1", "game 1", None),
    }
    (finding,) = find("groups_across_splits", **added)
    assert finding.text == (
        "train/annotations.jsonl:25: train/g0.png: group 'game 1' is in train (1 row) and valid"
        " (2 rows) (also valid/annotations.jsonl:5, valid/annotations.jsonl:6);"
        " keep each group in one split"
    )
    assert finding.quarantine == at("train", 25)


def test_unknown_labels_reports_labels_that_train_lacks(find: Any, picture: Any) -> None:
    rows = [("a.png", picture(0), "7"), ("b.png", picture(1), "")]
    findings = find("unknown_labels", valid=rows, test=rows[:1])
    fix = "correct the label or add training images"
    assert texts(findings) == [
        f"valid/annotations.jsonl:5: valid/a.png: label '7' does not occur in train; {fix}",
        f"valid/annotations.jsonl:6: valid/b.png: label '' does not occur in train; {fix}",
        f"test/annotations.jsonl:5: test/a.png: label '7' does not occur in train; {fix}",
    ]
    assert [finding.quarantine for finding in findings] == [finding.sources for finding in findings]


def test_empty_labels_reports_one_finding_per_split(find: Any, picture: Any) -> None:
    rows = [("a.png", picture(0), ""), ("b.png", picture(1), "")]
    findings = find("empty_labels", train=rows, test=rows[:1])
    fix = 'label these images, unless "" is meant to be a class'
    assert texts(findings) == [
        "train/annotations.jsonl:25: train/a.png: empty label in 2 of 26 rows of train"
        f" (also train/annotations.jsonl:26); {fix}",
        f"test/annotations.jsonl:5: test/a.png: empty label in 1 of 5 rows of test; {fix}",
    ]
    assert findings[0].quarantine == at("train", 25, 26)


def test_absent_classes_reports_classes_that_a_split_lacks(find: Any, picture: Any) -> None:
    findings = find(
        "absent_classes", train=[("a.png", picture(0), "7")], valid=[("a.png", picture(1), "7")]
    )
    assert texts(findings) == [
        "test lacks 1 of 3 classes: '7'; add images, or split again with `cls-data split`"
    ]


def test_rare_classes_reports_small_training_classes(find: Any, picture: Any) -> None:
    rows = [("a.png", picture(0), "7"), ("b.png", picture(1), "8"), ("c.png", picture(2), "8")]
    assert texts(find("rare_classes", train=rows)) == [
        "class '7' has 1 row in train, fewer than 10; add training images",
        "class '8' has 2 rows in train, fewer than 10; add training images",
    ]
    assert texts(find("rare_classes", train=rows, settings={"rare_class_under": 2})) == [
        "class '7' has 1 row in train, fewer than 2; add training images"
    ]
    assert len(find("rare_classes", train=rows, settings={"rare_class_under": 13})) == 4


def test_imbalance_compares_the_largest_and_smallest_class(find: Any, picture: Any) -> None:
    rows = [("a.png", picture(0), "7")]
    assert not find("imbalance", train=rows)
    assert not find("imbalance", train=rows, settings={"imbalance_over": 12})
    assert texts(find("imbalance", train=rows, settings={"imbalance_over": 11.9})) == [
        "class '1' has 12 times as many rows in train (12) as class '7' (1); add images of rare "
        "classes, or balance them with data.sampler=weighted or data.class_weights=balanced"
    ]


def test_outlying_sizes_reports_outliers_and_short_sides(find: Any, picture: Any) -> None:
    rows = [
        ("a.png", picture(0, (240, 320)), "1"),
        ("b.png", picture(1, (1, 1)), "1"),
        ("c.png", picture(2, (7, 90)), "1"),
    ]
    findings = find("outlying_sizes", train=rows)
    usual = "but the median side is 28 px; check the crop"
    assert sorted(texts(findings)) == [
        f"train/annotations.jsonl:25: train/a.png: 240x320 px, {usual}",
        f"train/annotations.jsonl:26: train/b.png: 1x1 px, {usual}",
        f"train/annotations.jsonl:27: train/c.png: 7x90 px, {usual}",
    ]
    assert "240x320" in findings[-1].text
    assert len(find("outlying_sizes", train=rows, settings={"smallest_side": 7})) == 2
    assert len(find("outlying_sizes", train=rows, settings={"outlying_fences": 50})) == 2


def test_outlying_aspects_reports_outliers(find: Any, picture: Any) -> None:
    rows = [
        ("a.png", picture(0, (90, 8)), "1"),
        ("b.png", Image.new("RGB", (10_000, 1)), "1"),
        ("c.png", picture(2, (30, 32)), "1"),
    ]
    findings = find("outlying_aspects", valid=rows)
    usual = "but the median ratio of width to height is 0.75; check the crop"
    assert texts(findings) == [
        f"valid/annotations.jsonl:6: valid/b.png: 10000x1 px, {usual}",
        f"valid/annotations.jsonl:5: valid/a.png: 90x8 px, {usual}",
    ]
    assert find("outlying_aspects", valid=rows, settings={"outlying_fences": 11})[
        0
    ].quarantine == at("valid", 6)


def test_dark_and_bright_images_compare_the_mean_luma(find: Any) -> None:
    levels = (3, 15, 16, 240, 241, 255)
    rows = [(f"all{level}.png", Image.new("RGB", (24, 32), (level,) * 3), "1") for level in levels]
    dark = "is below 16 (0 to 255); remove the row if the image is not legible"
    assert texts(find("dark_images", train=rows)) == [
        f"train/annotations.jsonl:25: train/all3.png: mean luma 3 {dark}",
        f"train/annotations.jsonl:26: train/all15.png: mean luma 15 {dark}",
    ]
    bright = "is above 240 (0 to 255); remove the row if the image is not legible"
    assert texts(find("bright_images", train=rows)) == [
        f"train/annotations.jsonl:30: train/all255.png: mean luma 255 {bright}",
        f"train/annotations.jsonl:29: train/all241.png: mean luma 241 {bright}",
    ]
    assert len(find("dark_images", train=rows, settings={"dark_under": 3})) == 0
    assert len(find("bright_images", train=rows, settings={"bright_over": 100})) >= 3


def test_blurred_images_compares_the_laplacian_variance(find: Any, picture: Any) -> None:
    blurred = picture(0).filter(ImageFilter.GaussianBlur(6))
    (finding,) = find("blurred_images", train=[("a.png", blurred, "1")])
    assert finding.text.startswith(
        "train/annotations.jsonl:25: train/a.png: blurred: Laplacian variance "
    )
    assert finding.quarantine == at("train", 25)
    assert not find(
        "blurred_images", train=[("a.png", blurred, "1")], settings={"blurred_under": 0}
    )


def test_finding_names_four_other_rows_and_counts_the_rest(find: Any, picture: Any) -> None:
    (finding,) = find("duplicates_within_split", train=[("a.png", picture(0), "1")] * 8)
    assert finding.text.endswith("annotations.jsonl:29, and 3 more); keep one row")
    assert len(finding.sources) == 8


def test_malformed_row_does_not_hide_other_findings(find: Any, picture: Any) -> None:
    rows = [b"nonsense", ("a.png", picture(0), "1"), ("b.png", b"", "1"), ("a.png", None, "2")]
    (finding,) = find("conflicting_labels", train=rows)
    assert finding.sources == at("train", 26, 28)
