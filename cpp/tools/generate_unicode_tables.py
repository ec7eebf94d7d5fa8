#!/usr/bin/env python3
"""Generate cpp/src/unicode_tables.cpp: the normaliser's map and its character classes.

Input: the Unicode Character Database (Debian: unicode-data, /usr/share/unicode) and, beside this
script, confusables_ascii.txt (UTS #39) and confusables_by_hand.txt. The map is described in
include/raxe_fast/normalize.hpp; its laws that can be checked here (idempotence, agreement with
the decomposition) are asserted.

    python3 cpp/tools/generate_unicode_tables.py [--ucd /usr/share/unicode] [--check]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
BLOCK = 64
HANGUL = range(0xAC00, 0xAC00 + 11172)
TAGS = range(0xE0000, 0xE1000)  # beyond the tables; all default-ignorable
MAX_EXPANSION = 18

# Entries of the second stage below FIRST_SEQUENCE have a meaning of their own.
SELF, DROPPED, IGNORABLE, SYLLABLE, FIRST_SEQUENCE = 0, 1, 2, 3, 4
SEPARATOR, WORD, UNSPACED = 0, 1, 2

UNSPACED_SCRIPTS = {"Han", "Hiragana", "Katakana", "Thai", "Lao", "Khmer", "Myanmar"}
# Scripts whose letters are never taken for ASCII ones: their resemblances are strokes of a larger
# writing system, and a Latin letter in their midst would change where words end.
NO_CONFUSABLES = UNSPACED_SCRIPTS | {"Hangul", "Bopomofo", "Yi", "Tangut", "Nushu", "Tibetan"}


@dataclass(slots=True)
class Ucd:
    """The properties used here; absent code points are unassigned."""

    version: str = ""
    category: dict[int, str] = field(default_factory=dict)
    combining: set[int] = field(default_factory=set)  # ccc != 0
    decomposition: dict[int, tuple[int, ...]] = field(default_factory=dict)  # one step, any kind
    decimal: dict[int, int] = field(default_factory=dict)  # Nd, and one-digit No
    upper: dict[int, int] = field(default_factory=dict)  # simple upper case
    folding: dict[int, tuple[int, ...]] = field(default_factory=dict)  # full case folding
    white_space: set[int] = field(default_factory=set)
    default_ignorable: set[int] = field(default_factory=set)
    script: dict[int, str] = field(default_factory=dict)
    script_extensions: dict[int, set[str]] = field(default_factory=dict)


def fields_of(path: Path) -> Iterator[list[str]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        content = line.split("#", 1)[0].strip()
        if content:
            yield [part.strip() for part in content.split(";")]


def code_points(text: str) -> range:
    first, _, last = text.partition("..")
    return range(int(first, 16), int(last or first, 16) + 1)


def read_ucd(root: Path) -> Ucd:
    ucd = Ucd()
    header = (root / "PropList.txt").read_text(encoding="utf-8").splitlines()[0]
    ucd.version = header.removeprefix("# PropList-").removesuffix(".txt")
    range_start = 0
    for row in fields_of(root / "UnicodeData.txt"):
        code, name, category = int(row[0], 16), row[1], row[2]
        if name.endswith("First>"):
            range_start = code
            continue
        members = range(range_start, code + 1) if name.endswith("Last>") else range(code, code + 1)
        for member in members:
            ucd.category[member] = category
        if row[3] != "0":
            ucd.combining.add(code)
        if row[5]:
            parts = [part for part in row[5].split() if not part.startswith("<")]
            ucd.decomposition[code] = tuple(int(part, 16) for part in parts)
        if row[7] and category in ("Nd", "No"):
            ucd.decimal[code] = int(row[7])
        if row[12]:
            ucd.upper[code] = int(row[12], 16)
    for row in fields_of(root / "CaseFolding.txt"):
        if row[1] in ("C", "F"):
            ucd.folding[int(row[0], 16)] = tuple(int(part, 16) for part in row[2].split())
    for row in fields_of(root / "PropList.txt"):
        if row[1] == "White_Space":
            ucd.white_space.update(code_points(row[0]))
    for row in fields_of(root / "DerivedCoreProperties.txt"):
        if row[1] == "Default_Ignorable_Code_Point":
            ucd.default_ignorable.update(code_points(row[0]))
    short = {
        row[1]: row[2] for row in fields_of(root / "PropertyValueAliases.txt") if row[0] == "sc"
    }
    for row in fields_of(root / "Scripts.txt"):
        for code in code_points(row[0]):
            ucd.script[code] = row[1]
    for row in fields_of(root / "ScriptExtensions.txt"):
        for code in code_points(row[0]):
            ucd.script_extensions[code] = {short[name] for name in row[1].split()}
    return ucd


class Map:
    """N(c): the normalised code points of one code point."""

    def __init__(self, ucd: Ucd, by_hand: dict[int, str], confusables: dict[int, str]) -> None:
        self.ucd = ucd
        self.looks_like = dict(by_hand)
        # Negative circled and squared capitals and regional indicators have no decomposition.
        for first in (0x1F150, 0x1F170, 0x1F1E6):
            self.looks_like |= {first + i: chr(ord("a") + i) for i in range(26)}
        for code, target in confusables.items():
            self._add_confusable(code, target)
        # Cyrillic small ve has no ASCII prototype but its capital has: keep such pairs together.
        for lower, upper in ucd.upper.items():
            if upper in self.looks_like and ucd.category[lower] == "Ll":
                self.looks_like.setdefault(lower, self.looks_like[upper])
        self.memo: dict[int, tuple[int, ...]] = {}

    def _add_confusable(self, code: int, target: str) -> None:
        category = self.ucd.category.get(code, "Cn")
        # A letter that resembles a digit stays a letter; so do symbols and vowel signs.
        if category[0] not in "LN" or (category[0] == "L" and target.isdigit()):
            return
        if self.ucd.script.get(code) in NO_CONFUSABLES:
            return
        # UTS #39 sends capital I to l; among capitals the shape means i.
        target = "i" if category in ("Lu", "Lt") and target == "l" else target.lower()
        self.looks_like.setdefault(code, target)

    def ignorable(self, code: int) -> bool:
        return self.ucd.category.get(code) == "Cf" or code in self.ucd.default_ignorable

    def space(self, code: int) -> bool:
        return self.ucd.category.get(code) == "Cc" or code in self.ucd.white_space

    def mark(self, code: int) -> bool:
        # Some spacing marks reorder under NFKC too (ccc != 0): dropping them keeps N context-free.
        return self.ucd.category.get(code) in ("Mn", "Me") or code in self.ucd.combining

    def __call__(self, code: int) -> tuple[int, ...]:
        if code not in self.memo:
            self.memo[code] = self._map(code)
        return self.memo[code]

    def _map(self, code: int) -> tuple[int, ...]:
        ucd = self.ucd
        if self.ignorable(code) or self.mark(code):
            return ()
        if self.space(code):
            return (0x20,)
        if code in HANGUL:
            return sum((self(jamo) for jamo in decompose_syllable(code)), ())
        if code in ucd.decomposition:
            return sum((self(part) for part in ucd.decomposition[code]), ())
        if code in ucd.decimal:
            return (ord("0") + ucd.decimal[code],)
        target = self.looks_like.get(code)
        # Capitals first by their own shape (Greek Nu is n, though nu looks like v).
        if target is not None and code >= 0x80 and ucd.category[code] in ("Lu", "Lt"):
            return (ord(target),)
        if code in ucd.folding:
            return sum((self(part) for part in ucd.folding[code]), ())
        if target is not None and code >= 0x80:
            return (ord(target),)
        return (code,)

    def char_class(self, code: int) -> int:
        category = self.ucd.category.get(code, "Cn")
        if code == ord("_"):
            return WORD
        if category[0] not in "LN" and category != "Mc":
            return SEPARATOR
        scripts = self.ucd.script_extensions.get(code, {self.ucd.script.get(code, "Zzzz")})
        return UNSPACED if scripts <= UNSPACED_SCRIPTS else WORD


def decompose_syllable(code: int) -> tuple[int, ...]:
    index = code - HANGUL.start
    lead, vowel, trail = index // 588, index % 588 // 28, index % 28
    jamo = (0x1100 + lead, 0x1161 + vowel)
    return (*jamo, 0x11A7 + trail) if trail else jamo


def check(n: Map, limit: int) -> None:
    """Assert the laws of normalize.hpp on every code point."""
    for code in [*range(limit), *TAGS]:
        result = n(code)
        assert len(result) <= MAX_EXPANSION, hex(code)
        for part in result:
            assert n(part) == (part,), (hex(code), hex(part))
            assert not n.ignorable(part) and not n.mark(part)
        if n.ignorable(code):
            assert code not in n.ucd.combining
        parts = n.ucd.decomposition.get(code, ())
        if any(n.ignorable(part) for part in parts):
            assert len(parts) == 1 and n.ignorable(code), hex(code)
        if parts and not n.ignorable(code):
            assert result == sum((n(part) for part in parts), ()), hex(code)
    assert all(n.ignorable(code) for code in TAGS)
    assert max(n.ucd.category) < 0x110000


def two_stage(values: list[int]) -> tuple[list[int], list[list[int]]]:
    blocks: dict[tuple[int, ...], int] = {}
    index = []
    for start in range(0, len(values), BLOCK):
        block = tuple(values[start : start + BLOCK])
        index.append(blocks.setdefault(block, len(blocks)))
    return index, [list(block) for block in blocks]


def array(kind: str, name: str, values: list[int]) -> str:
    words = [f"{value}," for value in values]
    lines, line = [], "   "
    for word in words:
        if len(line) + 1 + len(word) > 100:
            lines.append(line)
            line = "   "
        line += " " + word
    lines.append(line)
    body = "\n".join(lines)
    return f"const {kind} {name}[{len(values)}] = {{\n{body}\n}};\n"


def render(n: Map) -> tuple[str, str]:
    last = max(code for code in n.ucd.category if code < TAGS.start)
    limit = -(-(last + 1) // BLOCK) * BLOCK
    check(n, limit)
    sequences: dict[tuple[int, ...], int] = {}
    entries = []
    for code in range(limit):
        result = n(code)
        if n.ignorable(code):
            entries.append(IGNORABLE)
        elif code in HANGUL:
            entries.append(SYLLABLE)
        elif not result:
            entries.append(DROPPED)
        elif result == (code,):
            entries.append(SELF)
        else:
            entries.append(FIRST_SEQUENCE + sequences.setdefault(result, len(sequences)))
    pool: list[int] = []
    spans = []
    for sequence in sequences:
        spans.append(len(pool) << 5 | len(sequence))
        pool.extend(sequence)
    map_index, map_blocks = two_stage(entries)
    classes = [n.char_class(code) if n(code) == (code,) else SEPARATOR for code in range(limit)]
    class_index, class_blocks = two_stage(classes)
    packed = [
        sum(block[i + j] << 2 * j for j in range(4))
        for block in class_blocks
        for i in range(0, BLOCK, 4)
    ]
    assert len(map_blocks) < 65536 and max(entries) < 65536 and len(pool) < 1 << 27
    size = 2 * len(map_index) + 2 * BLOCK * len(map_blocks) + 4 * len(spans) + 4 * len(pool)
    size += 2 * len(class_index) + len(packed)
    source = "\n".join(
        [
            "// Generated by cpp/tools/generate_unicode_tables.py; do not edit.",
            f"// Unicode {n.ucd.version}; {size} bytes of tables.",
            "// Unicode data: Copyright (c) 1991-2022 Unicode, Inc.; see NOTICE.",
            '#include "unicode_tables.hpp"',
            "",
            "namespace raxe_fast::unicode {",
            "// clang-format off",
            "",
            array("std::uint16_t", "kMapIndex", map_index),
            array("std::uint16_t", "kMapBlocks", [v for block in map_blocks for v in block]),
            array("std::uint32_t", "kSequences", spans),
            array("char32_t", "kPool", pool),
            array("std::uint16_t", "kClassIndex", class_index),
            array("std::uint8_t", "kClassBlocks", packed),
            "// clang-format on",
            "}  // namespace raxe_fast::unicode",
            "",
        ]
    )
    header = HEADER.format(
        version=n.ucd.version,
        limit=f"0x{limit:X}",
        map_index=len(map_index),
        map_blocks=BLOCK * len(map_blocks),
        sequences=len(spans),
        pool=len(pool),
        class_index=len(class_index),
        class_blocks=len(packed),
    )
    return header, source


HEADER = """\
// Generated by cpp/tools/generate_unicode_tables.py; do not edit.
//
// Two-stage tables over blocks of 64 code points, for c < kLimit.
//   map entry: kMapBlocks[kMapIndex[c / 64] * 64 + c % 64]
//     kSelf, kDropped (combining mark), kIgnorable, kSyllable (Hangul), or kFirstSequence + s,
//     where kSequences[s] = offset in kPool << 5 | count.
//   class: 2 bits, four to a byte:
//     kClassBlocks[kClassIndex[c / 64] * 16 + c % 64 / 4] >> c % 4 * 2
#pragma once

#include <cstdint>

namespace raxe_fast::unicode {{

inline constexpr char kVersion[] = "{version}";
inline constexpr char32_t kLimit = {limit};
inline constexpr std::uint16_t kSelf = 0, kDropped = 1, kIgnorable = 2, kSyllable = 3,
                               kFirstSequence = 4;
// Beyond kLimit only these are special: tags and variation selectors, all default-ignorable.
inline constexpr char32_t kTagsBegin = 0xE0000, kTagsEnd = 0xE1000;

extern const std::uint16_t kMapIndex[{map_index}];
extern const std::uint16_t kMapBlocks[{map_blocks}];
extern const std::uint32_t kSequences[{sequences}];
extern const char32_t kPool[{pool}];
extern const std::uint16_t kClassIndex[{class_index}];
extern const std::uint8_t kClassBlocks[{class_blocks}];

}}  // namespace raxe_fast::unicode
"""


def read_pairs(path: Path) -> Iterator[tuple[str, str]]:
    for row in fields_of(path):
        source, target = row[0].split()
        yield source, target


def write_tables(stem: str, texts: Iterable[str], folder: Path, *, check: bool) -> int:
    """Writes header and source; with ``check`` nothing, and 1 is returned if one is stale."""
    stale = False
    for suffix, text in zip((".hpp", ".cpp"), texts, strict=True):
        path = folder / (stem + suffix)
        if check:
            stale |= not path.exists() or path.read_text(encoding="ascii") != text
        else:
            path.write_text(text, encoding="ascii")
    return 1 if stale else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ucd", type=Path, default=Path("/usr/share/unicode"))
    parser.add_argument("--output", type=Path, default=HERE.parent / "src")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if stale")
    arguments = parser.parse_args()
    n = Map(
        read_ucd(arguments.ucd),
        {ord(c): target for c, target in read_pairs(HERE / "confusables_by_hand.txt")},
        {int(c, 16): target for c, target in read_pairs(HERE / "confusables_ascii.txt")},
    )
    return write_tables("unicode_tables", render(n), arguments.output, check=arguments.check)


if __name__ == "__main__":
    sys.exit(main())
