"""The normaliser against `unicodedata`."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raxe_fast import _core

MAX_EXPANSION = 18
# Everything, lone surrogates included.
TEXTS = st.text(st.characters(exclude_categories=[]), max_size=40)
# Assigned long ago, so that all Unicode versions agree on them.
SETTLED = [
    chr(code)
    for code in range(0x30000)
    if unicodedata.ucd_3_2_0.category(chr(code)) not in {"Cn", "Cs", "Co"}
]


def n(text: str, separate: bool = False) -> str:
    return _core.normalize(text, separate)[0]


def folded(char: str) -> str:
    """NFKD without marks, case-folded: the normal form before confusables.

    Marks go first: U+0345 (iota below) would fold to a letter.
    """
    bare = without_marks(unicodedata.normalize("NFKD", char))
    return without_marks(unicodedata.normalize("NFKD", bare.casefold()))


def without_marks(text: str) -> str:
    # A few spacing marks (Mc) change places under normalisation, and go too.
    return "".join(
        c
        for c in text
        if unicodedata.category(c) not in {"Mn", "Me"} and not unicodedata.combining(c)
    )


@given(TEXTS)
def test_idempotent(text: str) -> None:
    assert n(n(text)) == n(text)
    assert n(n(text, True), True) == n(text, True)


@given(TEXTS)
def test_same_for_every_normal_form(text: str) -> None:
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        assert n(unicodedata.normalize(form, text)) == n(text), form


@given(TEXTS, TEXTS)
def test_one_character_at_a_time(left: str, right: str) -> None:
    assert n(left + right) == n(left) + n(right)


@given(TEXTS, st.booleans())
def test_origins_are_monotonic_and_in_range(text: str, separate: bool) -> None:
    chars, origins = _core.normalize(text, separate)
    assert len(chars) == len(origins)
    assert origins == sorted(origins)
    assert all(0 <= origin < len(text) for origin in origins)
    assert all(origins.count(origin) <= MAX_EXPANSION for origin in set(origins))
    for index, char in enumerate(text):
        mine = "".join(c for c, o in zip(chars, origins, strict=True) if o == index)
        assert mine == n(char, separate)


def test_every_code_point_equals_its_compatibility_form() -> None:
    for code in range(0x110000):
        char = chr(code)
        assert n(char) == n(unicodedata.normalize("NFKC", char)), hex(code)


def test_against_unicodedata() -> None:
    confusables = 0
    for char in SETTLED:
        category = unicodedata.category(char)
        if category in {"Cf", "Cc"} or char.isspace() or n(char, True) == " ":
            continue
        expected, got = folded(char), n(char)
        if any(unicodedata.category(c) in {"Cf", "Zs"} for c in expected):
            expected = "".join(
                " " if c.isspace() else c for c in expected if unicodedata.category(c) != "Cf"
            )
        if got == expected:
            continue
        # What is left are look-alikes: a letter or digit that is not ASCII became one that is.
        assert len(got) == len(expected), (hex(ord(char)), expected, got)
        for before, after in zip(expected, got, strict=True):
            if before != after:
                assert not before.isascii(), hex(ord(char))
                assert after.isascii(), hex(ord(char))
                assert after.isalnum(), hex(ord(char))
        confusables += 1
    assert 50 < confusables < 2000


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("IGNORE", "ignore"),
        ("ｉｇｎｏｒｅ", "ignore"),
        ("ignоre", "ignore"),  # Cyrillic о
        ("ρassword", "password"),  # Greek ρ
        ("𝐢𝐠𝐧𝐨𝐫𝐞", "ignore"),
        ("ⓘⓖⓝⓞⓡⓔ", "ignore"),
        ("i\u0336g\u0336n\u0336ore", "ignore"),
        ("ig\u200bno\u00adre", "ignore"),
        ("ﬁle", "file"),
        ("straße", "strasse"),
        ("tab\tand\u00a0space\u2003em", "tab and space em"),
        ("\x00", " "),
        ("instrucción", "instruccion"),
        ("жя漢字", "жя漢字"),
        ("", ""),
    ],
)
def test_examples(text: str, normal: str) -> None:
    assert n(text) == normal


def test_ignorable_characters_give_nothing_or_a_space() -> None:
    for char in "\u200b\u200d\u2060\ufeff\u00ad\u202e\ufe0f\U000e0061":
        assert n(f"a{char}b") == "ab"
        assert n(f"a{char}b", True) == "a b"


def test_composed_and_decomposed_hangul_are_one() -> None:
    assert n("가각힣") == n(unicodedata.normalize("NFD", "가각힣"))


def test_lone_surrogates_and_unassigned_code_points_map_to_themselves() -> None:
    for char in ("\ud800", "\udfff", "\U0010ffff", "\u0378"):
        assert _core.normalize(char) == (char, [0])


def test_bad_types() -> None:
    for bad in (None, b"x", 1):
        with pytest.raises(TypeError):
            _core.normalize(bad)
