import hashlib
import io
import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from cls_data import DataError, GateConfig, Quarantine, check
from cls_data.annotations.reading import SPLITS, scan_split
from cls_data.gate.config import RULE_NAMES

ABOUT_CLASSES = {"absent_classes", "rare_classes", "imbalance"}


def hash_files(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def encoded(image: Image.Image, kind: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


# A row: picture, file format, label, and group. Few of each, so that they coincide.
_rows = st.tuples(
    st.sampled_from(
        [
            0,
            1,
            2,
            3,
            4,
            5,
            6,
            7,
            8,
            9,
            "damaged",
            "empty",
            "flat",
            "tiny",
            "missing",
            "schema",
            "twice",
        ]
    ),
    st.sampled_from(["PNG", "BMP", "near-duplicate"]),
    st.sampled_from(["1", "2", "2", "3", ""]),
    st.sampled_from([None, None, None, None, "g", "h"]),
)
_splits = st.fixed_dictionaries(
    {"train": st.lists(_rows, min_size=1, max_size=14)},
    optional={
        "valid": st.lists(_rows, min_size=1, max_size=6),
        "test": st.lists(_rows, min_size=1, max_size=6),
    },
)
_policies = st.fixed_dictionaries(
    {rule: st.sampled_from(["error", "warn", "off"]) for rule in RULE_NAMES}
)


def as_rows(split: str, rows: list[Any], picture: Any) -> list[Any]:
    files = {"damaged": encoded(picture(1), "PNG")[:-30], "empty": b""}
    images = {"flat": Image.new("RGB", (24, 32)), "tiny": picture(0, (2, 2)), "twice": picture(0)}
    result: list[Any] = []
    for index, (what, kind, label, group) in enumerate(rows):
        more = {} if group is None else {"group": group}
        if what == "schema":
            result.append(json.dumps({"image": f"{index}.png", "suffix": index}).encode())
        elif what == "missing":
            result.append(("missing.png", None, label, more))
        elif what == "twice":
            result.append(("twice.png", images[what], label, more))
        elif what in files:
            result.append((f"{index}.png", files[what], label, more))
        else:
            image = images.get(what) or picture(what)
            if kind == "near-duplicate":
                image = image.point(lambda level: min(255, level + 2))
            result.append(
                (f"{index}.png", encoded(image, "BMP" if kind == "BMP" else "PNG"), label, more)
            )
    return result


@given(splits=_splits, policies=st.none() | _policies)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_quarantine_leaves_no_errors_about_rows(
    tmp_path_factory: pytest.TempPathFactory,
    write_set: Any,
    picture: Any,
    preprocessing: Any,
    splits: dict[str, Any],
    policies: dict[str, Any] | None,
) -> None:
    content = {split: as_rows(split, rows, picture) for split, rows in splits.items()}
    root = write_set(tmp_path_factory.mktemp("set"), content)
    before = hash_files(root)
    config = GateConfig(**(policies or {}), near_duplicate_levels=3)
    report = check(root, preprocessing, config)
    file = tmp_path_factory.mktemp("out") / "quarantine"
    count = report.write_quarantine(file)
    quarantine = Quarantine.load(file)
    assert hash_files(root) == before

    excluded = set(quarantine.rows)
    assert len(excluded) == count
    # Only existing rows, each with reasons, which are rules with the policy `error`.
    every = {split: scan_split(root, split) for split in SPLITS}
    sources = [row.source for rows in every.values() for row in (*rows.records, *rows.bad_rows)]
    sources.extend(record.source for rows in every.values() for record in rows.records)
    assert excluded <= set(sources)
    because = [json.loads(line)["because"] for line in file.read_text().splitlines()]
    assert all(
        reasons and all(config.policy(rule) == "error" for rule in reasons) for reasons in because
    )
    assert bool(excluded) == any(
        config.policy(rule) == "error" and rule not in ABOUT_CLASSES for rule in report.findings
    )

    # Reading with the quarantine yields exactly the other rows.
    for split, rows in every.items():
        again = scan_split(root, split, quarantine=quarantine)
        assert again.records == [record for record in rows.records if record.source not in excluded]
        assert again.bad_rows == [row for row in rows.bad_rows if row.source not in excluded]

    if excluded == set(sources):
        with pytest.raises(DataError, match="rows that the quarantine does not leave out"):
            check(root, preprocessing, config, quarantine=quarantine)
        return
    after = check(root, preprocessing, config, quarantine=quarantine)
    errors = {rule for rule in after.findings if config.policy(rule) == "error"}
    assert errors <= ABOUT_CLASSES
    assert after.rows_to_quarantine() == {}


def write_small_set(write_set: Any, picture: Any, root: Path) -> Path:
    return Path(
        write_set(
            root,
            {
                "train": [
                    (f"{row}.png", picture(row), "12"[row % 2], {"group": f"g{row}"})
                    for row in range(6)
                ],
                "valid": [
                    ("0.png", picture(10), "1"),
                    ("1.png", picture(11), "2", {"metadata": {"sun": True}}),
                ],
            },
        )
    )


def edit_rows(root: Path, split: str, change: Any) -> Path:
    file = root / split / "annotations.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows = change(rows) or rows
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def test_fingerprint_ignores_the_order_and_files_of_rows(
    tmp_path: Path, write_set: Any, picture: Any, preprocessing: Any
) -> None:
    root = write_small_set(write_set, picture, tmp_path)
    before = check(root, preprocessing).fingerprint
    assert len(bytes.fromhex(before)) == 32
    edit_rows(root, "train", lambda rows: rows.reverse())
    assert check(root, preprocessing, workers=2).fingerprint == before
    lines = (root / "train" / "annotations.jsonl").read_text().splitlines()
    (root / "train" / "annotations.jsonl").write_text("\n".join(lines[:2]))
    (root / "train" / "more.jsonl").write_text("\n\n".join(lines[2:]))
    assert check(root, preprocessing).fingerprint == before
    other = write_small_set(write_set, picture, tmp_path / "elsewhere")
    assert check(other, preprocessing).fingerprint == before


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows[3].update(suffix="1"),
        lambda rows: rows[3].update(suffix="3"),
        lambda rows: rows[3].update(group="g2"),
        lambda rows: rows[3].pop("group"),
        lambda rows: rows[3].update(metadata={"sun": 1}),
        lambda rows: rows[3].update(image="2.png"),
        lambda rows: rows.pop(),
        lambda rows: rows.append(rows[0]),
    ],
)
def test_fingerprint_changes_with_every_change_of_a_row(
    tmp_path: Path, write_set: Any, picture: Any, preprocessing: Any, change: Any
) -> None:
    root = write_small_set(write_set, picture, tmp_path)
    before = check(root, preprocessing).fingerprint
    assert (
        check(
            edit_rows(root, "train", lambda rows: change(rows) and None), preprocessing
        ).fingerprint
        != before
    )


def test_fingerprint_changes_with_image_bytes_metadata_and_split(
    tmp_path: Path, write_set: Any, picture: Any, preprocessing: Any
) -> None:
    root = write_small_set(write_set, picture, tmp_path)
    fingerprints = [check(root, preprocessing).fingerprint]
    with (root / "train" / "3.png").open("ab") as stream:
        stream.write(b"\0")  # after the end of the image; the pixels do not change
    fingerprints.append(check(root, preprocessing).fingerprint)
    edit_rows(root, "valid", lambda rows: rows[1].update(metadata={"sun": False}))
    fingerprints.append(check(root, preprocessing).fingerprint)
    (root / "valid").rename(root / "test")
    fingerprints.append(check(root, preprocessing).fingerprint)
    assert len(set(fingerprints)) == 4


def write_conflicting_set(write_set: Any, picture: Any, root: Path) -> Path:
    write_small_set(write_set, picture, root)
    with (root / "train" / "annotations.jsonl").open("a") as stream:
        stream.write('{"image": "0.png", "suffix": "2"}\n{"image": "1.png", "suffix": ""}\n')
    return root


def test_only_rules_with_the_error_policy_raise(
    tmp_path: Path, write_set: Any, picture: Any, preprocessing: Any
) -> None:
    root = write_conflicting_set(write_set, picture, tmp_path)
    report = check(root, preprocessing)
    assert (report.passed, report.count("error"), list(report.findings)) == (
        False,
        2,
        ["conflicting_labels", "empty_labels", "absent_classes", "rare_classes"],
    )
    with pytest.raises(DataError) as caught:
        report.raise_for_errors()
    message = str(caught.value)
    assert (
        "conflicting_labels (2):\n  train/annotations.jsonl:1: train/0.png: one image with the lab"
        in message
    )
    assert f"`cls-data check {root.resolve()} --quarantine FILE`" in message
    assert "empty_labels" not in message
    warnings = report.summary("warn")
    assert [line.partition(" ")[0] for line in warnings] == [
        "empty_labels",
        "absent_classes",
        "rare_classes",
    ]
    assert warnings[0].startswith(
        "empty_labels (1): train/annotations.jsonl:8: train/1.png: empty label in 1 of 8 rows"
    )

    lenient = check(root, preprocessing, GateConfig(conflicting_labels="warn"))
    assert (lenient.passed, lenient.rows_to_quarantine()) == (True, {})
    lenient.raise_for_errors()
    silent = check(root, preprocessing, GateConfig(**dict.fromkeys(RULE_NAMES, "off")))
    assert (silent.passed, silent.findings, silent.summary("warn")) == (True, {}, [])
    assert silent.fingerprint == lenient.fingerprint == report.fingerprint


def test_advised_command_names_the_annotations_that_were_checked(
    tmp_path: Path, write_set: Any, picture: Any, preprocessing: Any
) -> None:
    rows = [("a.png", picture(0), "1"), b"nonsense"]
    root = write_set(tmp_path / "my data", {"train": rows})
    (root / "folds").mkdir()
    (root / "train").rename(root / "folds" / "train")
    with pytest.raises(DataError) as caught:
        check(root, preprocessing, annotations="folds").raise_for_errors()
    command = f"cls-data check '{root.resolve()}' --annotations folds --quarantine FILE"
    assert f"`{command}`" in str(caught.value)


def test_error_message_lists_twenty_findings_and_counts_the_rest(
    tmp_path: Path, write_set: Any, picture: Any, preprocessing: Any
) -> None:
    root = write_set(tmp_path, {"train": [*[b"nonsense"] * 25, ("a.png", picture(0), "1")]})
    with pytest.raises(DataError, match=r"schema_errors \(25\):(.|\n)*:20: (.|\n)*and 5 more"):
        check(root, preprocessing).raise_for_errors()


def test_rows_to_quarantine_are_sorted_by_file_and_line(
    tmp_path: Path, write_set: Any, picture: Any, preprocessing: Any
) -> None:
    rows = [("a.png", picture(0), "1"), *[b"nonsense"] * 11, ("a.png", None, "2")]
    reasons = check(
        write_set(tmp_path, {"train": rows, "test": [b"{}"]}), preprocessing
    ).rows_to_quarantine()
    lines = [source.partition(".jsonl:")[2] for source in reasons]
    assert lines == [str(number) for number in (1, *range(1, 14))]
    assert reasons["train/annotations.jsonl:1"] == ["conflicting_labels"]


def test_rows_to_quarantine_include_labels_that_train_loses(
    tmp_path: Path, write_set: Any, picture: Any, preprocessing: Any
) -> None:
    train = [("a.png", picture(0), "1"), ("a.png", None, "7"), ("b.png", picture(1), "1")]
    root = write_set(
        tmp_path,
        {"train": train, "valid": [("c.png", picture(2), "7"), ("d.png", picture(3), "1")]},
    )
    assert check(root, preprocessing).rows_to_quarantine() == {
        "train/annotations.jsonl:1": ["conflicting_labels"],
        "train/annotations.jsonl:2": ["conflicting_labels"],
        "valid/annotations.jsonl:1": ["unknown_labels"],
    }


def test_check_rejects_a_quarantine_of_edited_rows(
    tmp_path: Path, write_set: Any, picture: Any, preprocessing: Any
) -> None:
    root = write_conflicting_set(write_set, picture, tmp_path)
    check(root, preprocessing).write_quarantine(tmp_path / "quarantine")
    edit_rows(root, "train", lambda rows: rows[0].update(suffix="2"))
    with pytest.raises(
        DataError, match=r"annotations\.jsonl:1: the text of this quarantined row changed"
    ):
        check(root, preprocessing, quarantine=Quarantine.load(tmp_path / "quarantine"))


def test_check_of_a_fold_quarantines_rows_of_the_fold(
    tmp_path: Path, write_set: Any, picture: Any, preprocessing: Any
) -> None:
    root = write_small_set(write_set, picture, tmp_path)
    for split, labels in (("train", ["1", "1", "2"]), ("valid", ["1"])):
        folder = root / "folds" / "0" / split
        folder.mkdir(parents=True)
        rows = [
            {"image": f"../../../{split}/{min(row, 1)}.png", "suffix": label}
            for row, label in enumerate(labels)
        ]
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = check(root, preprocessing, annotations="folds/0")
    assert set(report.rows_to_quarantine()) == {
        "folds/0/train/rows.jsonl:2",
        "folds/0/train/rows.jsonl:3",
    }
    report.write_quarantine(tmp_path / "quarantine")
    again = check(
        root,
        preprocessing,
        annotations="folds/0",
        quarantine=Quarantine.load(tmp_path / "quarantine"),
    )
    assert again.passed
    assert again.row_counts == {"train": 1, "valid": 1}


def test_check_gives_the_same_findings_with_two_workers(
    tmp_path: Path, write_set: Any, picture: Any, preprocessing: Any
) -> None:
    labels = itertools.cycle("123")
    rows: list[Any] = [(f"{row}.png", picture(row % 500), next(labels)) for row in range(600)]
    rows[300] = ("damaged.png", b"text", "1")
    root = write_set(tmp_path, {"train": rows})
    one, two = (check(root, preprocessing, workers=count) for count in (1, 2))
    assert one.findings == two.findings
    assert one.fingerprint == two.fingerprint
    assert Counter({rule: len(findings) for rule, findings in one.findings.items()}) == {
        "damaged_images": 1,
        "conflicting_labels": 100,
    }


@pytest.mark.parametrize("splits", [{}, {"train": []}, {"training": [("a.png", None, "1")]}])
def test_check_rejects_a_root_without_rows(
    tmp_path: Path, write_set: Any, preprocessing: Any, splits: dict[str, Any]
) -> None:
    with pytest.raises(
        DataError, match=r"no rows; expected|the split is empty|rename it to train/"
    ):
        check(write_set(tmp_path, splits), preprocessing)


@pytest.mark.parametrize("value", [True, "fatal", None, 1])
def test_config_rejects_unknown_policies(value: Any) -> None:
    with pytest.raises(ValueError, match="imbalance"):
        GateConfig(imbalance=value)


def test_config_accepts_the_unquoted_off_of_yaml() -> None:
    assert GateConfig.model_validate({"imbalance": False}).imbalance == "off"
