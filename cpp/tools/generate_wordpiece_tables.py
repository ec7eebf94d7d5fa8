#!/usr/bin/env python3
"""Generate cpp/src/wordpiece_tables.cpp: BERT's normaliser as the `tokenizers` library has it.

The library mixes Unicode versions (in 0.23.3 categories of 8.0, decompositions and combining
classes of 9.0, lower case of 17.0), so no Unicode Character Database gives its answers. It is asked
itself, about every code point, with one step of the normaliser at a time; the composed answer is
then checked against the whole normaliser. What follows from a new release of the library shows in
tests/test_wordpiece.py.

    python cpp/tools/generate_wordpiece_tables.py [--check]
"""

from __future__ import annotations

import argparse
import bisect
import sys
from functools import cache, cmp_to_key
from pathlib import Path

import tokenizers
from generate_unicode_tables import (
    BLOCK,
    HANGUL,
    array,
    decompose_syllable,
    two_stage,
    write_tables,
)
from tokenizers import normalizers, pre_tokenizers

HERE = Path(__file__).resolve().parent
CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]

# Entries of the second stage below FIRST_SEQUENCE have a meaning of their own.
WORD, SPACE, PUNCTUATION, REMOVED, IDEOGRAPH, SYLLABLE, FIRST_SEQUENCE = range(7)
# An element of a sequence: code point, rank of its combining class, kind.
RANK_SHIFT, KIND_SHIFT = 21, 27
DROPPED = 3  # a kind of element only, beside WORD, SPACE and PUNCTUATION


def bert(**steps: bool) -> normalizers.BertNormalizer:
    names = ("clean_text", "handle_chinese_chars", "strip_accents", "lowercase")
    return normalizers.BertNormalizer(**{name: steps.get(name, False) for name in names})


CLEAN = bert(clean_text=True)
CHINESE = bert(handle_chinese_chars=True)
ACCENTS = bert(strip_accents=True)
LOWER = bert(lowercase=True)
ALL = normalizers.BertNormalizer()
NFD = normalizers.NFD()
SPLIT = pre_tokenizers.BertPreTokenizer()


@cache
def ranks() -> dict[str, int]:
    """Combining classes above 0, numbered from 1 in their order: of two characters in a row the
    decomposition exchanges those whose classes descend."""

    def compare(a: str, b: str) -> int:
        if NFD.normalize_str(a + b) != a + b:
            return 1
        return -1 if NFD.normalize_str(b + a) != b + a else 0

    key = cmp_to_key(compare)
    found: dict[str, int] = {}
    classes: list[str] = []
    low, high = "\u0334", "\u0345"  # classes 1 and 240, the least and the greatest
    marks = [
        chr(c)
        for c in CODE_POINTS
        if NFD.normalize_str(chr(c)) == chr(c)
        and (compare(chr(c), low) > 0 or compare(high, chr(c)) > 0)
    ]
    for mark in marks:
        index = bisect.bisect_left(classes, key(mark), key=key)
        if index == len(classes) or compare(classes[index], mark) != 0:
            classes.insert(index, mark)
    for mark in marks:
        found[mark] = 1 + bisect.bisect_left(classes, key(mark), key=key)
    assert len(classes) < 64 and found[low] == 1 and found[high] == len(classes)
    return found


@cache
def element(char: str) -> int:
    """The packed element of one decomposed character."""
    rank = ranks().get(char, 0) << RANK_SHIFT
    if ACCENTS.normalize_str(char) == "":
        return DROPPED << KIND_SHIFT | rank
    lower = LOWER.normalize_str(char)
    assert len(lower) == 1, char  # the one exception, U+0130, has been decomposed
    return kind_of(lower) << KIND_SHIFT | rank | ord(lower)


@cache
def kind_of(char: str) -> int:
    return {1: WORD, 2: SPACE, 3: PUNCTUATION}[len(SPLIT.pre_tokenize_str(f"a{char}b"))]


def elements(code: int) -> tuple[int, ...]:
    """What one code point becomes; nothing where the cleaning step removes it."""
    char = chr(code)
    cleaned = CLEAN.normalize_str(char)
    parts = [element(part) for part in NFD.normalize_str(CHINESE.normalize_str(cleaned))]
    if len(parts) > 1 and CHINESE.normalize_str(cleaned) != cleaned:
        # Characters with spaces around them must not take part in reordering.
        assert all(part >> RANK_SHIFT & 63 == 0 for part in parts)
    return tuple(parts)


def check(code: int, parts: tuple[int, ...]) -> None:
    """The composed steps are the whole normaliser, alone and inside a word."""
    assert [p >> RANK_SHIFT & 63 for p in parts[1:]] == sorted(
        p >> RANK_SHIFT & 63 for p in parts[1:]
    ) or all(p >> RANK_SHIFT & 63 == 0 for p in parts)
    expected = "".join(chr(p & 0x1FFFFF) for p in parts if p >> KIND_SHIFT != DROPPED)
    for before, after in (("", ""), ("a", "b")):
        found = ALL.normalize_str(before + chr(code) + after)
        assert found == before + expected + after, hex(code)


def entries() -> tuple[list[int], dict[tuple[int, ...], int]]:
    sequences: dict[tuple[int, ...], int] = {}
    found = [REMOVED] * 0x110000  # lone surrogates, too: the scanner reads them as U+FFFD
    for code in CODE_POINTS:
        parts = elements(code)
        check(code, parts)
        space = SPACE << KIND_SHIFT | 0x20
        if not parts:
            continue
        if code in HANGUL:
            assert parts == decompose_syllable(code)
            found[code] = SYLLABLE
        elif parts == (code,):
            found[code] = WORD
        elif parts == (space,):
            found[code] = SPACE
        elif parts == (PUNCTUATION << KIND_SHIFT | code,):
            found[code] = PUNCTUATION
        elif parts == (space, code, space):
            found[code] = IDEOGRAPH
        else:
            found[code] = FIRST_SEQUENCE + sequences.setdefault(parts, len(sequences))
    return found, sequences


def render() -> tuple[str, str]:
    found, sequences = entries()
    # Beyond the last block that is not alike all through there are private planes only.
    last = max(code for code in CODE_POINTS if found[code] not in (WORD, REMOVED))
    limit = -(-(last + 1) // BLOCK) * BLOCK
    removed = [code for code in range(limit, 0x110000) if found[code] == REMOVED]
    gaps = [i for i in range(1, len(removed)) if removed[i] != removed[i - 1] + 1]
    bounds = [removed[0], *(b for i in gaps for b in (removed[i - 1] + 1, removed[i]))]
    bounds.append(removed[-1] + 1)
    pool: list[int] = []
    spans = []
    for sequence in sequences:
        spans.append(len(pool) << 3 | len(sequence))
        pool.extend(sequence)
    index, blocks = two_stage(found[:limit])
    assert max(map(len, sequences)) < 8 and max(found) < 65536 and len(blocks) < 65536
    flat = [value for block in blocks for value in block]
    size = 2 * len(index) + 2 * len(flat) + 4 * len(spans) + 4 * len(pool) + 4 * len(bounds)
    source = "\n".join(
        [
            "// Generated by cpp/tools/generate_wordpiece_tables.py; do not edit.",
            f"// As in tokenizers {tokenizers.__version__}; {size} bytes of tables.",
            "// Unicode data: Copyright (c) 1991-2025 Unicode, Inc.; see NOTICE.",
            '#include "wordpiece_tables.hpp"',
            "",
            "namespace raxe_fast::wordpiece {",
            "// clang-format off",
            "",
            array("std::uint16_t", "kIndex", index),
            array("std::uint16_t", "kBlocks", flat),
            array("std::uint32_t", "kSequences", spans),
            array("std::uint32_t", "kPool", pool),
            array("std::uint32_t", "kRemovedBounds", bounds),
            "// clang-format on",
            "}  // namespace raxe_fast::wordpiece",
            "",
        ]
    )
    header = HEADER.format(
        version=tokenizers.__version__,
        limit=f"0x{limit:X}",
        index=len(index),
        blocks=len(flat),
        sequences=len(spans),
        pool=len(pool),
        bounds=len(bounds),
        classes=max(ranks().values()),
    )
    return header, source


HEADER = """\
// Generated by cpp/tools/generate_wordpiece_tables.py; do not edit.
//
// BERT's normaliser as in tokenizers {version}: a two-stage table over blocks of 64 code points,
// for c < kLimit.
//   entry: kBlocks[kIndex[c / 64] * 64 + c % 64]
//     an `Entry`, or kFirstSequence + s, where kSequences[s] = offset in kPool << 3 | count.
//   element of kPool, from bit 0: code point in 21 bits, rank of the combining class in 6 (0: a
//     starter), `ElementKind` in 2.
// From kLimit on a code point is a word character, unless kRemovedBounds (half-open intervals, one
// after another) hold it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace raxe_fast::wordpiece {{

inline constexpr char32_t kLimit = {limit};
enum Entry : std::uint16_t {{
  kWord = 0,         // stays as it is
  kSpace = 1,        // becomes a space
  kPunctuation = 2,  // stays, a word of its own
  kRemoved = 3,
  kIdeograph = 4,    // stays, with a space before and after
  kSyllable = 5,     // Hangul: becomes its jamo
  kFirstSequence = 6,
}};
enum class ElementKind : std::uint8_t {{ word = 0, space = 1, punctuation = 2, dropped = 3 }};
inline constexpr unsigned kRankShift = 21, kKindShift = 27;
inline constexpr std::uint32_t kCodePointMask = 0x1FFFFF, kRankMask = 63;
inline constexpr std::size_t kRanks = {classes};  // ranks are from 0 to this

extern const std::uint16_t kIndex[{index}];
extern const std::uint16_t kBlocks[{blocks}];
extern const std::uint32_t kSequences[{sequences}];
extern const std::uint32_t kPool[{pool}];
extern const std::uint32_t kRemovedBounds[{bounds}];

}}  // namespace raxe_fast::wordpiece
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=HERE.parent / "src")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if stale")
    arguments = parser.parse_args()
    return write_tables("wordpiece_tables", render(), arguments.output, check=arguments.check)


if __name__ == "__main__":
    sys.exit(main())
