import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from cls_data import GateConfig, check
from cls_data.gate.config import RULES
from cls_data.gate.inputs import Finding
from cls_data.gate.rules import JUDGES


@pytest.fixture
def clean(picture: Any) -> dict[str, list[Any]]:
    """Rows that no rule finds fault with: two classes, twelve rows of each in train and two in the others."""
    numbers = iter(range(100, 200))

    def rows(count: int) -> list[Any]:
        return [(f"{row}.png", picture(next(numbers)), "12"[row % 2]) for row in range(count)]

    return {"train": rows(24), "valid": rows(4), "test": rows(4)}


@pytest.fixture
def found(tmp_path: Path, write_set: Any, clean: dict[str, list[Any]], preprocessing: Any) -> Any:
    """Add rows to the clean ones, and return what one rule finds."""

    def find(
        rule: str, *, settings: dict[str, Any] | None = None, **added: Sequence[Any]
    ) -> Sequence[Finding]:
        splits = {split: [*rows, *added.get(split, ())] for split, rows in clean.items()}
        config = GateConfig(**{**dict.fromkeys(RULES, "off"), rule: "error", **(settings or {})})
        report = check(write_set(tmp_path, splits), preprocessing, config)
        assert report.passed == (not report.findings)
        assert set(report.findings) <= {rule}
        return report.findings.get(rule, ())

    return find


def texts(findings: Sequence[Finding]) -> list[str]:
    return [finding.text for finding in findings]


def at(split: str, *lines: int) -> tuple[str, ...]:
    return tuple(f"{split}/annotations.jsonl:{line}" for line in lines)


def encoded(image: Image.Image, kind: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def test_every_rule_has_a_policy_and_a_judge() -> None:
    assert tuple(JUDGES) == RULES
    assert len(RULES) == 21


@pytest.mark.parametrize("policy", ["error", "warn"])
def test_a_clean_set_gives_no_finding(
    tmp_path: Path, write_set: Any, clean: dict[str, list[Any]], preprocessing: Any, policy: Any
) -> None:
    report = check(
        write_set(tmp_path, clean), preprocessing, GateConfig(**dict.fromkeys(RULES, policy))
    )
    assert report.findings == {}
    assert report.rows() == {"train": 24, "valid": 4, "test": 4}


def test_schema_errors_are_rows_of_another_shape(found: Any) -> None:
    findings = found(
        "schema_errors", train=[b'{"image": "0.png", "suffix": 23}'], valid=[b"nonsense"]
    )
    assert texts(findings) == [
        'train/annotations.jsonl:25: suffix is the number 23; a class name is a string: "23"',
        "valid/annotations.jsonl:5: not valid JSON (expected ident at line 1 column 2): nonsense",
    ]
    assert [finding.leave_out for finding in findings] == [at("train", 25), at("valid", 5)]


def test_image_files_are_missing_or_out_of_bounds(found: Any, tmp_path: Path) -> None:
    rows = [("gone.png", None, "1"), ("../../outside.png", None, "1"), ("/etc/hostname", None, "1")]
    findings = found("image_files", train=rows)
    assert [finding.leave_out for finding in findings] == [
        at("train", line) for line in (25, 26, 27)
    ]
    for finding, said in zip(
        findings, ("does not exist", "leaves the data root", "must be a path rel"), strict=True
    ):
        assert finding.text.startswith(f"{finding.leave_out[0]}: image ")
        assert said in finding.text


def test_damaged_images_are_cut_short_or_empty_or_none(found: Any, picture: Any) -> None:
    whole = encoded(picture(0), "JPEG")
    overwritten = whole[:300] + bytes(len(whole) - 300)
    rows = [
        ("a.jpg", whole[:-9], "1"),
        ("b.jpg", b"", "1"),
        ("c.jpg", b"text", "2"),
        ("d.jpg", overwritten, "1"),
    ]
    findings = found("damaged_images", train=rows)
    assert sorted(finding.leave_out for finding in findings) == [
        at("train", line) for line in (25, 26, 27, 28)
    ]
    (empty,) = (text for text in texts(findings) if "train/b.jpg" in text)
    assert empty.startswith(
        "train/annotations.jsonl:26: train/b.jpg: 0 bytes: not an image of a known format (JPEG"
    )
    assert all(not finding.files for finding in findings)


def test_huge_images_are_known_by_their_header(found: Any, bomb: bytes) -> None:
    (finding,) = found("huge_images", valid=[("b.png", bomb, "1")])
    assert finding.text == (
        "valid/annotations.jsonl:5: valid/b.png: 8000x8000 px is over the limit of 50,000,000 pixels"
    )
    assert finding.leave_out == at("valid", 5)


@pytest.fixture
def bomb() -> bytes:
    return encoded(Image.new("1", (8000, 8000)), "PNG")


def test_a_huge_image_is_not_called_damaged(found: Any, bomb: bytes) -> None:
    assert not found("damaged_images", valid=[("b.png", bomb, "1")])


def test_wrong_extensions_promise_another_format(found: Any, picture: Any) -> None:
    rows = [
        ("a.jpg", encoded(picture(0), "GIF"), "1"),
        ("b.JPG", encoded(picture(1), "JPEG"), "1"),
        ("c.tif", encoded(picture(2), "TIFF"), "1"),
        ("d", encoded(picture(3), "PNG"), "1"),
    ]
    findings = found("wrong_extensions", train=[*rows, ("a.jpg", None, "1")])
    assert texts(findings) == [
        "train/annotations.jsonl:25: train/a.jpg: is a GIF file, but its name ends in '.jpg'"
        " (and train/annotations.jsonl:29)",
        "train/annotations.jsonl:28: train/d: is a PNG file, but its name ends in ''",
    ]
    assert findings[0].leave_out == at("train", 25, 29)


@pytest.mark.parametrize("kind", ["same file", "same bytes", "same pixels"])
def test_conflicting_labels_are_two_labels_of_one_image(
    found: Any, picture: Any, kind: str
) -> None:
    other = {
        "same file": ("a.png", None),
        "same bytes": ("b.png", picture(0)),
        "same pixels": ("b.bmp", picture(0)),
    }
    (finding,) = found(
        "conflicting_labels", train=[("a.png", picture(0), "1"), (*other[kind], "2")]
    )
    assert finding.text == (
        "train/annotations.jsonl:25: train/a.png: one image, several labels: '1', '2' (and train/annotations.jsonl:26)"
    )
    assert finding.leave_out == finding.sources == at("train", 25, 26)
    assert len(finding.files) == (1 if kind == "same file" else 2)


def test_conflicting_labels_are_found_across_splits(found: Any, picture: Any) -> None:
    (finding,) = found(
        "conflicting_labels", train=[("a.png", picture(0), "1")], test=[("a.png", picture(0), "2")]
    )
    assert finding.leave_out == (*at("train", 25), *at("test", 5))


def test_an_empty_label_beside_one_name_is_left_out_alone(found: Any, picture: Any) -> None:
    rows = [
        ("a.png", picture(0), "1"),
        ("b.png", picture(0), ""),
        ("a.png", None, "1"),
        ("b.png", None, ""),
    ]
    (finding,) = found("conflicting_labels", train=rows)
    assert "several labels: '', '1'" in finding.text
    assert finding.leave_out == at("train", 26, 28)


def test_an_empty_label_beside_two_names_is_left_out_with_them(found: Any, picture: Any) -> None:
    (finding,) = found(
        "conflicting_labels", train=[("a.png", picture(0), label) for label in ("1", "", "2")]
    )
    assert finding.leave_out == at("train", 25, 26, 27)


def test_one_label_twice_is_no_conflict(found: Any, picture: Any) -> None:
    assert not found(
        "conflicting_labels", train=[("a.png", picture(0), "1"), ("b.png", picture(0), "1")]
    )


def test_images_that_differ_in_one_level_are_not_the_same(found: Any, picture: Any) -> None:
    other = picture(0)
    red, green, blue = other.getpixel((3, 3))
    other.putpixel((3, 3), (red ^ 1, green, blue))
    assert not found(
        "conflicting_labels", train=[("a.png", picture(0), "1"), ("b.png", other, "2")]
    )


@pytest.mark.parametrize(
    ("splits", "left_out"),
    [
        (("train", "test"), ["train"]),
        (("train", "valid"), ["train"]),
        (("valid", "test"), ["valid"]),
        (("train", "valid", "test"), ["train", "valid"]),
    ],
)
def test_of_duplicates_across_splits_the_last_split_keeps_its_own(
    found: Any, picture: Any, splits: Sequence[str], left_out: Sequence[str]
) -> None:
    twice = [("a.png", picture(0), "1"), ("a.bmp", picture(0), "1")]
    (finding,) = found("duplicates_across_splits", **dict.fromkeys(splits, twice))
    assert f": one image in {' and '.join(splits)} (and " in finding.text
    lines = {"train": (25, 26), "valid": (5, 6), "test": (5, 6)}
    assert finding.leave_out == tuple(
        source for split in left_out for source in at(split, *lines[split])
    )


def test_duplicates_within_a_split_keep_the_first(found: Any, picture: Any) -> None:
    rows = [("a.png", picture(0), "1"), ("b.bmp", picture(0), "1"), ("a.png", None, "1")]
    findings = found("duplicates_within_split", train=rows, test=rows[:1])
    assert texts(findings) == [
        "train/annotations.jsonl:25: train/a.png: one image 3 times"
        " (and train/annotations.jsonl:26, train/annotations.jsonl:27)"
    ]
    assert findings[0].leave_out == at("train", 26, 27)


def test_duplicates_under_two_labels_are_a_conflict_and_nothing_else(
    found: Any, picture: Any
) -> None:
    assert not found(
        "duplicates_within_split", train=[("a.png", picture(0), "1"), ("b.png", picture(0), "2")]
    )


def brighter(image: Image.Image, levels: int) -> Image.Image:
    return Image.fromarray(np.clip(np.asarray(image).astype(int) + levels, 0, 255).astype(np.uint8))


def test_near_duplicates_look_alike_across_splits(found: Any, picture: Any) -> None:
    near = brighter(picture(0), 2)
    (finding,) = found(
        "near_duplicates_across_splits",
        train=[("a.png", picture(0), "1")],
        valid=[("a.png", near, "2")],
    )
    assert finding.text == (
        "train/annotations.jsonl:25: train/a.png: look alike, in train and valid, with labels '1', '2'"
        " (and valid/annotations.jsonl:5)"
    )
    assert finding.leave_out == at("train", 25)


def test_near_duplicates_look_alike_within_a_split(found: Any, picture: Any) -> None:
    rows = [
        ("a.png", picture(0), "1"),
        ("b.png", brighter(picture(0), 2), "1"),
        ("c.jpg", picture(0), "1"),
    ]
    (finding,) = found("near_duplicates_within_split", valid=rows)
    assert finding.text.startswith("valid/annotations.jsonl:5: valid/a.png: look alike (and ")
    assert finding.leave_out == at("valid", 6, 7)
    assert len(finding.files) == 3


def test_a_near_duplicate_of_an_image_in_two_splits_is_across_them(
    found: Any, picture: Any
) -> None:
    # The same image is in test, too, and that one is near the row of train as well.
    train = [("a.png", picture(0), "1"), ("b.png", brighter(picture(0), 2), "1")]
    test = [("z.png", picture(0), "1")]
    (finding,) = found("near_duplicates_across_splits", train=train, test=test)
    assert finding.sources == (*at("train", 25), *at("test", 5), *at("train", 26))
    assert not found("near_duplicates_within_split", train=train, test=test)


def test_the_same_image_is_no_near_duplicate(found: Any, picture: Any) -> None:
    both = {"train": [("a.png", picture(0), "1")], "test": [("b.bmp", picture(0), "1")]}
    assert not found("near_duplicates_across_splits", **both)
    assert not found(
        "near_duplicates_within_split", train=[*both["train"], ("b.bmp", picture(0), "1")]
    )


def test_how_near_is_near_is_a_setting(found: Any, picture: Any) -> None:
    rows = {
        "train": [("a.png", picture(0), "1")],
        "valid": [("a.png", brighter(picture(0), 8), "1")],
    }
    assert not found("near_duplicates_across_splits", **rows)
    assert found("near_duplicates_across_splits", settings={"near_duplicate_levels": 9}, **rows)


def test_groups_across_splits_stand_in_several(found: Any, picture: Any) -> None:
    def rows(first: int, *groups: str | None) -> list[Any]:
        return [
            (f"g{row}.png", picture(first + row), "1", {"group": name})
            for row, name in enumerate(groups)
        ]

    added = {
        "train": rows(0, "game 1", "game 2", None),
        "valid": rows(10, "game 1", "game 1", None),
    }
    (finding,) = found("groups_across_splits", **added)
    assert finding.text == (
        "train/annotations.jsonl:25: train/g0.png: group 'game 1' stands in train (1 rows) and valid (2 rows)"
        " (and valid/annotations.jsonl:5, valid/annotations.jsonl:6)"
    )
    assert finding.leave_out == at("train", 25)


def test_unknown_labels_are_absent_from_train(found: Any, picture: Any) -> None:
    rows = [("a.png", picture(0), "7"), ("b.png", picture(1), "")]
    findings = found("unknown_labels", valid=rows, test=rows[:1])
    assert texts(findings) == [
        "valid/annotations.jsonl:5: valid/a.png: label '7' is in no row of train",
        "valid/annotations.jsonl:6: valid/b.png: label '' is in no row of train",
        "test/annotations.jsonl:5: test/a.png: label '7' is in no row of train",
    ]
    assert [finding.leave_out for finding in findings] == [finding.sources for finding in findings]


def test_empty_labels_are_a_class_of_their_own(found: Any, picture: Any) -> None:
    rows = [("a.png", picture(0), ""), ("b.png", picture(1), "")]
    findings = found("empty_labels", train=rows, test=rows[:1])
    assert texts(findings) == [
        'train/annotations.jsonl:25: train/a.png: the label of 2 of 26 rows of train is "", which makes it a class'
        " (and train/annotations.jsonl:26)",
        'test/annotations.jsonl:5: test/a.png: the label of 1 of 5 rows of test is "", which makes it a class',
    ]
    assert findings[0].leave_out == at("train", 25, 26)


def test_absent_classes_are_in_train_alone(found: Any, picture: Any) -> None:
    findings = found(
        "absent_classes", train=[("a.png", picture(0), "7")], valid=[("a.png", picture(1), "7")]
    )
    assert texts(findings) == ["test has no row of 1 of 3 classes: '7'"]


def test_rare_classes_have_few_rows_in_train(found: Any, picture: Any) -> None:
    rows = [("a.png", picture(0), "7"), ("b.png", picture(1), "8"), ("c.png", picture(2), "8")]
    said = ["class '7' has 1 rows in train", "class '8' has 2 rows in train"]
    assert texts(found("rare_classes", train=rows)) == said
    assert texts(found("rare_classes", train=rows, settings={"rare_class_under": 2})) == said[:1]
    assert len(found("rare_classes", train=rows, settings={"rare_class_under": 13})) == 4


def test_imbalance_is_the_ratio_of_the_largest_class_to_the_smallest(
    found: Any, picture: Any
) -> None:
    rows = [("a.png", picture(0), "7")]
    assert not found("imbalance", train=rows)
    assert not found("imbalance", train=rows, settings={"imbalance_over": 12})
    assert texts(found("imbalance", train=rows, settings={"imbalance_over": 11.9})) == [
        "class '1' has 12 rows in train, class '7' has 1: 12 times as many"
    ]


def test_outlying_sizes_are_far_from_the_others_or_too_small_to_read(
    found: Any, picture: Any
) -> None:
    rows = [
        ("a.png", picture(0, (240, 320)), "1"),
        ("b.png", picture(1, (1, 1)), "1"),
        ("c.png", picture(2, (7, 90)), "1"),
    ]
    findings = found("outlying_sizes", train=rows)
    assert sorted(texts(findings)) == [
        "train/annotations.jsonl:25: train/a.png: 240x320 px; usual are about 28 px a side",
        "train/annotations.jsonl:26: train/b.png: 1x1 px; usual are about 28 px a side",
        "train/annotations.jsonl:27: train/c.png: 7x90 px; usual are about 28 px a side",
    ]
    assert "240x320" in findings[-1].text
    assert len(found("outlying_sizes", train=rows, settings={"smallest_side": 7})) == 2
    assert len(found("outlying_sizes", train=rows, settings={"outlying_fences": 50})) == 2


def test_outlying_aspects_are_far_narrower_or_wider_than_the_others(
    found: Any, picture: Any
) -> None:
    rows = [
        ("a.png", picture(0, (90, 8)), "1"),
        ("b.png", Image.new("RGB", (10_000, 1)), "1"),
        ("c.png", picture(2, (30, 32)), "1"),
    ]
    findings = found("outlying_aspects", valid=rows)
    assert texts(findings) == [
        "valid/annotations.jsonl:6: valid/b.png: 10000x1 px; usual is a width of 0.75 times the height",
        "valid/annotations.jsonl:5: valid/a.png: 90x8 px; usual is a width of 0.75 times the height",
    ]
    assert found("outlying_aspects", valid=rows, settings={"outlying_fences": 11})[
        0
    ].leave_out == at("valid", 6)


def test_dark_and_bright_images_have_a_mean_luma_out_of_bounds(found: Any) -> None:
    levels = (3, 15, 16, 240, 241, 255)
    rows = [(f"all{level}.png", Image.new("RGB", (24, 32), (level,) * 3), "1") for level in levels]
    assert texts(found("dark_images", train=rows)) == [
        "train/annotations.jsonl:25: train/all3.png: mean luma 3 of 255",
        "train/annotations.jsonl:26: train/all15.png: mean luma 15 of 255",
    ]
    assert texts(found("bright_images", train=rows)) == [
        "train/annotations.jsonl:30: train/all255.png: mean luma 255 of 255",
        "train/annotations.jsonl:29: train/all241.png: mean luma 241 of 255",
    ]
    assert len(found("dark_images", train=rows, settings={"dark_under": 3})) == 0
    assert len(found("bright_images", train=rows, settings={"bright_over": 100})) >= 3


def test_blurred_images_have_a_laplacian_of_little_variance(found: Any, picture: Any) -> None:
    blurred = picture(0).filter(ImageFilter.GaussianBlur(6))
    (finding,) = found("blurred_images", train=[("a.png", blurred, "1")])
    assert finding.text.startswith(
        "train/annotations.jsonl:25: train/a.png: variance of the Laplacian "
    )
    assert finding.leave_out == at("train", 25)
    assert not found(
        "blurred_images", train=[("a.png", blurred, "1")], settings={"blurred_under": 0}
    )


def test_a_text_names_four_other_rows_and_counts_the_rest(found: Any, picture: Any) -> None:
    (finding,) = found("duplicates_within_split", train=[("a.png", picture(0), "1")] * 8)
    assert finding.text.endswith("annotations.jsonl:29, … 3 more)")
    assert len(finding.sources) == 8


def test_a_broken_row_hides_no_other_finding(found: Any, picture: Any) -> None:
    rows = [b"nonsense", ("a.png", picture(0), "1"), ("b.png", b"", "1"), ("a.png", None, "2")]
    (finding,) = found("conflicting_labels", train=rows)
    assert finding.sources == at("train", 26, 28)
