"""Labels that look alike: the rule `similar_labels` and the hint of `unknown_labels`."""

from typing import Any

import pytest


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["Shoe", "Shoe", "shoe"], "'Shoe' (2 rows), 'shoe' (1 row)"),
        (["Shoe", "Shoe", "Shoe "], "'Shoe' (2 rows), 'Shoe ' (1 row)"),
        (["red shoe", "red shoe", "red  shoe"], "'red shoe' (2 rows), 'red  shoe' (1 row)"),
        (["caf\u00e9", "caf\u00e9", "cafe\u0301"], "'caf\\xe9' (2 rows), 'cafe\\u0301' (1 row)"),
        (["shoe", "shoe", "shoe\u200b"], "'shoe' (2 rows), 'shoe\\u200b' (1 row)"),
    ],
)
def test_similar_labels_reports_all_spellings_and_their_rows(
    find: Any, picture: Any, labels: list[str], expected: str
) -> None:
    rows = [(f"s{number}.png", picture(number), label) for number, label in enumerate(labels)]
    (finding,) = find("similar_labels", train=rows)
    assert f"the labels {expected} differ only in letter case" in finding.text
    assert finding.quarantine == ("train/annotations.jsonl:27",)


@pytest.mark.parametrize("label", ["shoe ", " shoe", "\u00a0shoe"])
def test_similar_labels_reports_a_label_with_a_blank_at_an_end(
    find: Any, picture: Any, label: str
) -> None:
    (finding,) = find("similar_labels", train=[("s.png", picture(0), label)])
    assert "starts or ends with a blank, which is part of its name" in finding.text


def test_similar_labels_compares_splits(find: Any, picture: Any) -> None:
    findings = find(
        "similar_labels",
        train=[("s.png", picture(0), "shoe")],
        valid=[("s.png", picture(1), "Shoe")],
    )
    assert "'Shoe' (1 row), 'shoe' (1 row)" in findings[0].text


def test_similar_labels_ignores_leading_zeros(find: Any, picture: Any) -> None:
    rows = [("s.png", picture(0), "01"), ("t.png", picture(1), "001")]
    assert not find("similar_labels", train=rows)


def test_unknown_labels_names_the_class_that_a_label_resembles(find: Any, picture: Any) -> None:
    (finding,) = find(
        "unknown_labels",
        train=[("s.png", picture(0), "Shoe")],
        valid=[("s.png", picture(1), "shoe ")],
    )
    assert "label 'shoe ' does not occur in train; did you mean 'Shoe'? It differs" in finding.text
