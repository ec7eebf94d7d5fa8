"""Which decoders could find anything in a text: one pass of the core, before any of them runs.

Most texts hold nothing encoded, and each decoder would go through all of a text to say so. A *sign*
is a condition that a text has to meet for its decoder to find anything: a run of letters and digits
long enough for base64, two words as common ones come out of one cipher, and so on. The core looks
for all signs at once.
"""

from __future__ import annotations

from raxe_fast import _core
from raxe_fast.common_words import COMMON_WORDS
from raxe_fast.decode_ciphers import AY_WORDS, FORMS

__all__ = [
    "ALL_SIGNS",
    "BASE_N",
    "CIPHER",
    "CODE_LIST",
    "ESCAPES",
    "FOLDED",
    "HIDDEN",
    "LEET",
    "MORSE",
    "PIG_LATIN",
    "SPACING",
    "WORD_ORDER",
    "signs_of",
]

# As in cpp/include/raxe_fast/encoding_signs.hpp.
BASE_N = 1 << 0
CODE_LIST = 1 << 1
LEET = 1 << 2
ESCAPES = 1 << 3
MORSE = 1 << 4
SPACING = 1 << 5
CIPHER = 1 << 6
WORD_ORDER = 1 << 7
PIG_LATIN = 1 << 8
HIDDEN = 1 << 9
FOLDED = 1 << 10
ALL_SIGNS = (1 << 11) - 1

_SIGNS = _core.EncodingSigns(
    FORMS,
    sorted(COMMON_WORDS),
    # What is not all letters the core takes for pig Latin; the decoder knows better.
    sorted(filter(str.isalpha, AY_WORDS | {word for word in COMMON_WORDS if word[-2:] == "ay"})),
)

signs_of = _SIGNS.__call__
"""(text, limit) -> the bits of the decoders that could find anything in the text, where views of at
most ``limit`` characters are wanted. Takes any str."""
