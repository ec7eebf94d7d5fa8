"""How English a word is spelt, by which letters follow each other in it."""

from __future__ import annotations

import re
from string import ascii_lowercase

__all__ = ["spelling_bits"]

_BORDER = "{"  # the character after z: the begin and the end of a word
# A row for each letter and then the border, a column for what follows it: half bits of surprise
# (-2 log2 of its share, with half a count added, at most 25) as letters from a. Counted over the
# English texts of our own in training/own_texts.
_TABLE = """
    tljjwnksjumikfwlvhhgmmpsktg
    hpsvewxsimzhsufuzinqivzyizi
    gzlwgxzfjxijuxfvzjohjvzznsk
    irumftpxhvwooqhsxlktmquzmuc
    jqljknornvrklhqmsghjqlomotd
    iyzyijvygwzlwvezzhrjkzwzqze
    iuytfymiizwmsjiszilpjywzqxd
    fsyucwzzhzyrsrgwzlrknzvxozg
    moikjlkvztojleinukggulzqvri
    guvrdrsrkyqrunfosvjtfrtyvth
    kstqdrqqhvtnqjlszphnlwqypyd
    grrjfosugzogqshozskmlqrzjyf
    fkwsevtzhzyqkqhizrmskzuzjzf
    kukghohsksnnunisyuigmouynue
    oomlojntntmjifklzgkjgmjrrwg
    gvtqgrtkjzxgsthjzgljjzwznzg
    rvyuvyyyyyvlvvyyyqyqapyvyyi
    irnjesnthynommhsxmijkoqzkte
    julsguxjjzmoppjmtsjglumzoud
    jtqvgvweizxpsuhrzkkmmznwnte
    lmkliqlvkushjgqkzgggvtvsqtg
    hxuybxuxfzzvxwitzqswqwzztzk
    gyvsfxzffzxqzkgyzjlvvzuzrzg
    gujxiuzqjzzsrurfzzservzqpze
    npqsjvuxoyvooqemzriltzruwzc
    hroneqrshvqmoojqyrqkhrlskke
    gjjjkjmkipnkjkjjpkhgmnjvlsz
"""
_LETTERS = ascii_lowercase + _BORDER
_BITS = {
    first + second: (ord(code) - ord("a")) / 2
    for first, row in zip(_LETTERS, _TABLE.split(), strict=True)
    for second, code in zip(_LETTERS, row, strict=True)
}
_RUN = re.compile("[a-z]+")


def spelling_bits(token: str) -> float:
    """Bits of surprise of the runs of ASCII letters in a token, in any case; 0 without letters.

    Only a comparison says something: of two spellings with as many letters the more English one
    has fewer bits.
    """
    total = 0.0
    for run in _RUN.findall(token.lower()):
        word = f"{_BORDER}{run}{_BORDER}"
        total += sum(_BITS[word[i : i + 2]] for i in range(len(word) - 1))
    return total
