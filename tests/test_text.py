"""Names from files: control characters go, lengths end, what people write stays."""

from __future__ import annotations

import pytest

from napari_samexp._text import LONGEST_NAME, clean_name


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("Fuchs", "Fuchs"),
        ("名前 ñ é", "名前 ñ é"),
        ("👩‍🔬", "👩‍🔬"),  # three signs and a joiner
        ("می‌خواهم", "می‌خواهم"),  # with a joiner of no width
        ("<b>A & B</b>", "<b>A & B</b>"),
        ("two\nlines\tand\r\na tab", "two lines and  a tab"),
        ("\x1b[31mred\x00\x9b", "[31mred"),
        ("gpj.\u202efdp", "gpj.fdp"),
        ("\u2066a\u2069\u200f", "a"),
        ("half \ud800 a pair", "half  a pair"),
        ("\u2028\u2029", "  "),
        ("", ""),
    ],
)
def test_what_stays_of_a_name(name: str, kept: str) -> None:
    assert clean_name(name) == kept


def test_a_long_name_is_cut() -> None:
    assert clean_name("x" * LONGEST_NAME) == "x" * LONGEST_NAME
    assert clean_name("x" * 10**7) == "x" * (LONGEST_NAME - 1) + "…"
    assert clean_name("abcdef", 4) == "abc…"


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(TypeError):
        clean_name(["a"])  # type: ignore[arg-type]
