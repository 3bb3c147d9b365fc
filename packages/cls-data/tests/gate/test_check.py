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
from cls_data.gate.config import RULES

ABOUT_CLASSES = {"absent_classes", "rare_classes", "imbalance"}


def hashes(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def encoded(image: Image.Image, kind: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


# A row of a small set: which picture, as what file, under which label and group. Few of each, so that they meet.
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
            "gone",
            "schema",
            "twice",
        ]
    ),
    st.sampled_from(["PNG", "BMP", "nearly"]),
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
    {rule: st.sampled_from(["error", "warn", "off"]) for rule in RULES}
)


def as_rows(split: str, rows: list[Any], picture: Any) -> list[Any]:
    files = {"damaged": encoded(picture(1), "PNG")[:-30], "empty": b""}
    images = {"flat": Image.new("RGB", (24, 32)), "tiny": picture(0, (2, 2)), "twice": picture(0)}
    made: list[Any] = []
    for place, (what, kind, label, group) in enumerate(rows):
        more = {} if group is None else {"group": group}
        if what == "schema":
            made.append(json.dumps({"image": f"{place}.png", "suffix": place}).encode())
        elif what == "gone":
            made.append(("gone.png", None, label, more))
        elif what == "twice":
            made.append(("twice.png", images[what], label, more))
        elif what in files:
            made.append((f"{place}.png", files[what], label, more))
        else:
            image = images.get(what) or picture(what)
            if kind == "nearly":
                image = image.point(lambda level: min(255, level + 2))
            made.append(
                (f"{place}.png", encoded(image, "BMP" if kind == "BMP" else "PNG"), label, more)
            )
    return made


@given(splits=_splits, policies=st.none() | _policies)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_without_the_rows_of_its_quarantine_a_set_has_no_row_that_is_an_error(
    tmp_path_factory: pytest.TempPathFactory,
    write_set: Any,
    picture: Any,
    preprocessing: Any,
    splits: dict[str, Any],
    policies: dict[str, Any] | None,
) -> None:
    made = {split: as_rows(split, rows, picture) for split, rows in splits.items()}
    root = write_set(tmp_path_factory.mktemp("set"), made)
    before = hashes(root)
    config = GateConfig(**(policies or {}), near_duplicate_levels=3)
    report = check(root, preprocessing, config)
    file = tmp_path_factory.mktemp("out") / "left-out"
    count = report.write_quarantine(file)
    quarantine = Quarantine.load(file)
    assert hashes(root) == before

    left_out = set(quarantine.rows)
    assert len(left_out) == count
    # Only rows that are there; and none without a reason, or from a rule that is no error.
    every = {split: scan_split(root, split) for split in SPLITS}
    sources = [row.source for rows in every.values() for row in (*rows.records, *rows.bad)]
    sources.extend(record.source for rows in every.values() for record in rows.records)
    assert left_out <= set(sources)
    because = [json.loads(line)["because"] for line in file.read_text().splitlines()]
    assert all(
        reasons and all(config.policy(rule) == "error" for rule in reasons) for reasons in because
    )
    assert bool(left_out) == any(
        config.policy(rule) == "error" and rule not in ABOUT_CLASSES for rule in report.findings
    )

    # Reading with it yields exactly the other rows.
    for split, rows in every.items():
        again = scan_split(root, split, quarantine=quarantine)
        assert again.records == [record for record in rows.records if record.source not in left_out]
        assert again.bad == [row for row in rows.bad if row.source not in left_out]

    if left_out == set(sources):
        with pytest.raises(DataError, match="of which the quarantine leaves some"):
            check(root, preprocessing, config, quarantine=quarantine)
        return
    after = check(root, preprocessing, config, quarantine=quarantine)
    errors = {rule for rule in after.findings if config.policy(rule) == "error"}
    assert errors <= ABOUT_CLASSES
    assert after.to_leave_out() == {}


def small(write_set: Any, picture: Any, root: Path) -> Path:
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


def rewritten(root: Path, split: str, change: Any) -> Path:
    file = root / split / "annotations.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows = change(rows) or rows
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def test_the_fingerprint_is_free_of_order_and_of_files_of_rows(
    tmp_path: Path, write_set: Any, picture: Any, preprocessing: Any
) -> None:
    root = small(write_set, picture, tmp_path)
    before = check(root, preprocessing).fingerprint
    assert len(bytes.fromhex(before)) == 32
    rewritten(root, "train", lambda rows: rows.reverse())
    assert check(root, preprocessing, workers=2).fingerprint == before
    lines = (root / "train" / "annotations.jsonl").read_text().splitlines()
    (root / "train" / "annotations.jsonl").write_text("\n".join(lines[:2]))
    (root / "train" / "more.jsonl").write_text("\n\n".join(lines[2:]))
    assert check(root, preprocessing).fingerprint == before
    other = small(write_set, picture, tmp_path / "elsewhere")
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
def test_the_fingerprint_sees_every_change_of_a_row(
    tmp_path: Path, write_set: Any, picture: Any, preprocessing: Any, change: Any
) -> None:
    root = small(write_set, picture, tmp_path)
    before = check(root, preprocessing).fingerprint
    assert (
        check(
            rewritten(root, "train", lambda rows: change(rows) and None), preprocessing
        ).fingerprint
        != before
    )


def test_the_fingerprint_sees_every_byte_and_the_split(
    tmp_path: Path, write_set: Any, picture: Any, preprocessing: Any
) -> None:
    root = small(write_set, picture, tmp_path)
    seen = [check(root, preprocessing).fingerprint]
    with (root / "train" / "3.png").open("ab") as stream:
        stream.write(b"\0")  # after the end of the image: its pixels are the same
    seen.append(check(root, preprocessing).fingerprint)
    rewritten(root, "valid", lambda rows: rows[1].update(metadata={"sun": False}))
    seen.append(check(root, preprocessing).fingerprint)
    (root / "valid").rename(root / "test")
    seen.append(check(root, preprocessing).fingerprint)
    assert len(set(seen)) == 4


def conflicting(write_set: Any, picture: Any, root: Path) -> Path:
    small(write_set, picture, root)
    with (root / "train" / "annotations.jsonl").open("a") as stream:
        stream.write('{"image": "0.png", "suffix": "2"}\n{"image": "1.png", "suffix": ""}\n')
    return root


def test_policies_say_what_stops_a_run(
    tmp_path: Path, write_set: Any, picture: Any, preprocessing: Any
) -> None:
    root = conflicting(write_set, picture, tmp_path)
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
        "conflicting_labels, 2 found:\n  train/annotations.jsonl:1: train/0.png: one image, several lab"
        in message
    )
    assert f"`cls-data check {root.resolve()} --quarantine FILE`" in message
    assert "empty_labels" not in message
    warnings = report.summary("warn")
    assert [line.partition(":")[0] for line in warnings] == [
        "empty_labels",
        "absent_classes",
        "rare_classes",
    ]
    assert warnings[0].startswith(
        "empty_labels: 1 found; train/annotations.jsonl:8: train/1.png: the label of 1 of 8"
    )

    lenient = check(root, preprocessing, GateConfig(conflicting_labels="warn"))
    assert (lenient.passed, lenient.to_leave_out()) == (True, {})
    lenient.raise_for_errors()
    silent = check(root, preprocessing, GateConfig(**dict.fromkeys(RULES, "off")))
    assert (silent.passed, silent.findings, silent.summary("warn")) == (True, {}, [])
    assert silent.fingerprint == lenient.fingerprint == report.fingerprint


def test_many_findings_are_counted_and_the_first_twenty_shown(
    tmp_path: Path, write_set: Any, picture: Any, preprocessing: Any
) -> None:
    root = write_set(tmp_path, {"train": [*[b"nonsense"] * 25, ("a.png", picture(0), "1")]})
    with pytest.raises(DataError, match=r"schema_errors, 25 found:(.|\n)*:20: (.|\n)*and 5 more"):
        check(root, preprocessing).raise_for_errors()


def test_what_is_left_out_is_in_the_order_of_lines(
    tmp_path: Path, write_set: Any, picture: Any, preprocessing: Any
) -> None:
    rows = [("a.png", picture(0), "1"), *[b"nonsense"] * 11, ("a.png", None, "2")]
    reasons = check(
        write_set(tmp_path, {"train": rows, "test": [b"{}"]}), preprocessing
    ).to_leave_out()
    lines = [source.partition(".jsonl:")[2] for source in reasons]
    assert lines == [str(number) for number in (1, *range(1, 14))]
    assert reasons["train/annotations.jsonl:1"] == ["conflicting_labels"]


def test_a_label_that_only_left_out_rows_had_in_train_is_left_out_of_valid_too(
    tmp_path: Path, write_set: Any, picture: Any, preprocessing: Any
) -> None:
    train = [("a.png", picture(0), "1"), ("a.png", None, "7"), ("b.png", picture(1), "1")]
    root = write_set(
        tmp_path,
        {"train": train, "valid": [("c.png", picture(2), "7"), ("d.png", picture(3), "1")]},
    )
    assert check(root, preprocessing).to_leave_out() == {
        "train/annotations.jsonl:1": ["conflicting_labels"],
        "train/annotations.jsonl:2": ["conflicting_labels"],
        "valid/annotations.jsonl:1": ["unknown_labels"],
    }


def test_a_quarantine_of_edited_rows_is_refused_by_the_gate(
    tmp_path: Path, write_set: Any, picture: Any, preprocessing: Any
) -> None:
    root = conflicting(write_set, picture, tmp_path)
    check(root, preprocessing).write_quarantine(tmp_path / "left-out")
    rewritten(root, "train", lambda rows: rows[0].update(suffix="2"))
    with pytest.raises(
        DataError,
        match=r"annotations\.jsonl:1: the quarantine names this row, but with another text",
    ):
        check(root, preprocessing, quarantine=Quarantine.load(tmp_path / "left-out"))


def test_folds_are_checked_and_left_out_by_their_own_rows(
    tmp_path: Path, write_set: Any, picture: Any, preprocessing: Any
) -> None:
    root = small(write_set, picture, tmp_path)
    for split, labels in (("train", ["1", "1", "2"]), ("valid", ["1"])):
        folder = root / "folds" / "0" / split
        folder.mkdir(parents=True)
        rows = [
            {"image": f"../../../{split}/{min(row, 1)}.png", "suffix": label}
            for row, label in enumerate(labels)
        ]
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = check(root, preprocessing, annotations="folds/0")
    assert set(report.to_leave_out()) == {
        "folds/0/train/rows.jsonl:2",
        "folds/0/train/rows.jsonl:3",
    }
    report.write_quarantine(tmp_path / "left-out")
    again = check(
        root,
        preprocessing,
        annotations="folds/0",
        quarantine=Quarantine.load(tmp_path / "left-out"),
    )
    assert again.passed
    assert again.rows() == {"train": 1, "valid": 1}


def test_processes_find_what_one_process_finds(
    tmp_path: Path, write_set: Any, picture: Any, preprocessing: Any
) -> None:
    labels = itertools.cycle("123")
    rows: list[Any] = [(f"{row}.png", picture(row % 500), next(labels)) for row in range(600)]
    rows[300] = ("damaged.png", b"text", "1")
    root = write_set(tmp_path, {"train": rows})
    one, two = (check(root, preprocessing, workers=count) for count in (1, 2))
    assert one.findings == two.findings
    assert one.fingerprint == two.fingerprint
    assert Counter({rule: len(found) for rule, found in one.findings.items()}) == {
        "damaged_images": 1,
        "conflicting_labels": 100,
    }


@pytest.mark.parametrize("splits", [{}, {"train": []}, {"training": [("a.png", None, "1")]}])
def test_a_root_with_nothing_to_look_at_is_refused(
    tmp_path: Path, write_set: Any, preprocessing: Any, splits: dict[str, Any]
) -> None:
    with pytest.raises(DataError, match=r"no rows; expected|the split is empty"):
        check(write_set(tmp_path, splits), preprocessing)


@pytest.mark.parametrize("value", [True, "fatal", None, 1])
def test_a_policy_that_there_is_not_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="imbalance"):
        GateConfig(imbalance=value)


def test_an_unquoted_off_of_yaml_is_a_policy() -> None:
    assert GateConfig.model_validate({"imbalance": False}).imbalance == "off"
