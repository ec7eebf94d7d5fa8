"""Rows for pairs of neighbouring tokens, added to the word embeddings of a small encoder.

A network of one layer sees two words in a row only where attention finds them. A table looked up by
a hash of both costs one access to memory a token and no multiplication, and says it at once. Hashed
n-gram embeddings beside those of words: Joulin et al., "Bag of Tricks for Efficient Text
Classification" (fastText, EACL 2017), section 2.3; here with the layer above them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from raxe_fast.native import PAIR_HASH
from raxe_fast.training.encoder_source import PAIRS, EncoderSource

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["FIRST", "MODULUS", "SECOND", "pair_rows", "with_pairs"]

# Row of a token: (FIRST * token before it + SECOND * token) mod MODULUS mod rows, with 0 before the
# first.
FIRST, SECOND, MODULUS = PAIR_HASH


def with_pairs(source: EncoderSource, rows: int) -> EncoderSource:
    """The encoder with a table of ``rows`` rows, all zero: it gives what it gave before. As it is
    where ``rows`` is 0 or it has so many already.

    Raises ValueError for an encoder that is no BERT or has another number of rows.
    """
    if rows in (0, source.pair_rows):
        return source
    if source.architecture != "bert":
        raise ValueError(f"a {source.architecture} takes no rows for pairs of tokens")
    if source.pair_rows:
        raise ValueError(f"the encoder has {source.pair_rows} rows for pairs of tokens, not {rows}")
    table = np.zeros((rows, source.hidden), np.float32)
    return replace(source, weights={**source.weights, PAIRS: table})


def pair_rows(ids: Tensor, rows: int) -> Tensor:
    """(B, S) rows of (B, S) int64 token ids."""
    from torch.nn.functional import pad

    before = pad(ids, (1, 0))[:, :-1]
    return (before * FIRST + ids * SECOND) % MODULUS % rows
