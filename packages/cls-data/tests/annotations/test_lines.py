import tracemalloc
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cls_data.annotations.lines import MAX_LINE_BYTES, read_lines


@given(
    lines=st.lists(st.binary(max_size=20).map(lambda line: line.replace(b"\n", b"")), max_size=20),
    end=st.booleans(),
)
def test_read_lines_numbers_lines_from_one_and_skips_blank_ones(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], end: bool
) -> None:
    assume(not b"\n".join(lines).startswith((b"\xff\xfe", b"\xfe\xff")))
    file = tmp_path_factory.mktemp("lines") / "rows.jsonl"
    file.write_bytes(b"\n".join(lines) + b"\n" * end)
    lines = [lines[0].removeprefix(b"\xef\xbb\xbf"), *lines[1:]] if lines else []
    expected = [
        (number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()
    ]
    assert list(read_lines(file)) == expected


def test_read_lines_strips_a_byte_order_mark_from_the_first_line_only(tmp_path: Path) -> None:
    (tmp_path / "rows").write_bytes(b"\xef\xbb\xbf a\r\n\xef\xbb\xbfb")
    assert list(read_lines(tmp_path / "rows")) == [(1, b"a"), (2, b"\xef\xbb\xbfb")]


@pytest.mark.parametrize("ending", [b"\n", b"\nb\n", b""])
def test_read_lines_yields_none_for_a_line_over_the_limit(tmp_path: Path, ending: bytes) -> None:
    file = tmp_path / "rows"
    after = [(2, b"b")] if b"b" in ending else []
    for length, expected in (
        (MAX_LINE_BYTES - 1, b"x" * (MAX_LINE_BYTES - 1)),
        (MAX_LINE_BYTES + 1, None),
    ):
        file.write_bytes(b"x" * length + ending)
        assert list(read_lines(file)) == [(1, expected), *after]
    file.write_bytes(b"x" * 3 * MAX_LINE_BYTES + ending)
    assert list(read_lines(file)) == [(1, None), *after]


def test_read_lines_never_holds_a_too_long_line_in_memory(tmp_path: Path) -> None:
    (tmp_path / "rows").write_bytes(b"x" * 10_000_000 + b"\nb\n")
    tracemalloc.start()
    assert list(read_lines(tmp_path / "rows")) == [(1, None), (2, b"b")]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * MAX_LINE_BYTES
