"""Attacks of which only a harmless cover shows: what training must not learn as one.

"Hello!" with an order in tag characters behind it is an attack. The tokenizer drops those
characters, and so does the normalisation before n-grams: with the label of the whole, the greeting
would be learnt as an attack. The scanner decodes what is hidden and reads it as a text of its own.
"""

from __future__ import annotations

from raxe_fast.decode_folding import hidden_views
from raxe_fast.training.corpus import Record

__all__ = ["is_cover"]

_LIMIT = 64  # code points to decode; that there are some is all that counts


def is_cover(record: Record) -> bool:
    """Whether the text of an attack hides some of its words. Few show an attack beside it."""
    return record.label == 1 and bool(hidden_views(record.text, _LIMIT))
