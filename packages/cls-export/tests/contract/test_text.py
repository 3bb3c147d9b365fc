import pytest
from hypothesis import given
from hypothesis import strategies as st

from cls_export.contract.text import (
    count_columns,
    escape_control_characters,
    short_name,
    shorten_long_words,
)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("\x1b[31m", r"\x1b[31m"),
        ("\x00\x07\t\x7f\x9b", r"\x00\x07\t\x7f\x9b"),
        ("\u202egpj\u200f\u200e\u061c", r"\u202egpj\u200f\u200e\u061c"),
        ("\udc80", r"\udc80"),
        ("a\nb", "a\nb"),
        ("שלום 中文 é", "שלום 中文 é"),
        ("[/x] $x$ </script>", "[/x] $x$ </script>"),
    ],
)
def test_control_characters_are_escaped_and_other_text_is_kept(name: str, shown: str) -> None:
    assert escape_control_characters(name) == shown


@given(st.text())
def test_escaped_text_can_be_encoded_and_holds_no_control_character(name: str) -> None:
    escaped = escape_control_characters(name).replace("\n", " ")
    assert all(character >= " " for character in escaped)
    assert escaped.encode().decode() == escaped


def test_short_names_are_one_line_of_limited_length() -> None:
    assert short_name("") == "(empty)"
    assert short_name("a\nb\x1b") == r"a\nb\x1b"
    assert short_name("a" * 60) == "a" * 60
    assert short_name("a" * 5000 + "b" * 5000, 10) == "aaaaa…bbbbb"


@pytest.mark.parametrize("length", [1, 999, 1_000, 1_001, 10_000])
def test_only_the_middle_of_long_words_is_left_out(length: int) -> None:
    word = "x" * length
    shortened = shorten_long_words(f"{word} and {word}")
    expected = word if length <= 1_000 else "x" * 500 + "…" + "x" * 500
    assert shortened == f"{expected} and {expected}"


@pytest.mark.parametrize(("text", "columns"), [("", 0), ("a b", 3), ("中文", 4), ("é中", 3)])
def test_wide_characters_take_two_columns(text: str, columns: int) -> None:
    assert count_columns(text) == columns
