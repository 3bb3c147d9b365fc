import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cls_data.annotations.label_names import LabelHints, label_key, quote_label


@pytest.mark.parametrize(
    ("label", "other"),
    [
        ("Shoe", "shoe"),
        ("Shoe ", "Shoe"),
        ("\tShoe", "Shoe"),
        ("red  shoe", "Red Shoe"),
        ("red\u00a0shoe", "red shoe"),
        ("caf\u00e9", "cafe\u0301"),
        ("\u00c9tui", "e\u0301tui"),
        ("stra\u00dfe", "STRASSE"),
        ("shoe\u200b", "shoe"),
        ("\ufeffshoe", "shoe"),
        ("sh\u00adoe", "shoe"),
        (" ", ""),
    ],
)
def test_labels_that_look_alike_have_one_key(label: str, other: str) -> None:
    assert label_key(label) == label_key(other)


@pytest.mark.parametrize(
    ("label", "other"),
    [
        ("007", "7"),
        ("0", "00"),
        ("1", "l"),
        ("shoe", "shoes"),
        ("cafe", "caf\u00e9"),
        ("a b", "ab"),
    ],
)
def test_labels_that_differ_have_different_keys(label: str, other: str) -> None:
    assert label_key(label) != label_key(other)


@given(st.text(max_size=12))
def test_the_key_ignores_case_form_and_outer_blanks(label: str) -> None:
    key = label_key(label)
    assert label_key(key) == key
    assert label_key(f" {unicodedata.normalize('NFD', label)}\u200b\t") == key


@given(st.text(max_size=8), st.text(max_size=8))
def test_quoted_labels_of_one_composed_form_differ(label: str, other: str) -> None:
    if label != other:
        quoted, other_quoted = quote_label(label), quote_label(other)
        assert unicodedata.normalize("NFC", quoted) != unicodedata.normalize("NFC", other_quoted)


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("shoe ", "; did you mean 'Shoe'? It differs only in letter case, blanks, or Unicode form"),
        (
            "cafe\u0301",
            "; did you mean 'caf\\xe9'? It differs only in letter case, blanks, or Unicode form",
        ),
        ("Shoess", "; did you mean 'Shoe'?"),
        (" 7", "; did you mean '7'? It differs only in letter case, blanks, or Unicode form"),
        ("007", ""),
        ("17", ""),
        ("trousers", ""),
        ("", ""),
    ],
)
def test_an_unknown_label_gets_the_name_that_it_resembles(label: str, expected: str) -> None:
    assert LabelHints(["7", "Shoe", "caf\u00e9"]).suggest(label) == expected


def test_no_label_is_suggested_without_classes() -> None:
    assert LabelHints([]).suggest("shoe") == ""


def test_the_number_of_comparisons_does_not_grow_with_unknown_labels_times_classes() -> None:
    hints = LabelHints(f"name {number} of a class" for number in range(20_000))
    found = [hints.suggest(f"nome {number} of a class") for number in range(10_000)]
    assert found[0] == "; did you mean 'name 0 of a class'?"
    assert found[-1] == ""
    assert "it differs only" in hints.suggest("NAME 19999 of a class").lower()
