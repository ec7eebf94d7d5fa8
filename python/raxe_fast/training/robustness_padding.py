"""Attacks beside harmless text that has nothing to do with them, and harmless texts there."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from raxe_fast.training.augment_padding import piece_of
from raxe_fast.training.corpus import Record
from raxe_fast.training.robustness_results import PaddingRow, PaddingTable, RobustnessOptions
from raxe_fast.training.robustness_shared import Flagger, draw, rate_of, ratio_of, short_texts

__all__ = ["measure_padding"]

_SIDES = ("before", "after")
_JOINT = "\n\n"


def measure_padding(
    records: Sequence[Record], options: RobustnessOptions, flagger: Flagger
) -> PaddingTable:
    """Short attacks and harmless texts, alone and with a piece of a document of ``records`` before
    or after them."""
    rng = random.Random(options.seed)
    attacks, benign = short_texts(records, options, rng)
    longest = max(options.padding_chars)
    # Sorted by draw: the order of the records does not matter.
    documents = draw(
        (
            r.text
            for r in records
            if r.label == 0
            and r.subfamily in options.document_subfamilies
            and len(r.text) >= longest
        ),
        len(records),
        rng,
    )
    texts = attacks + benign
    is_attack = np.arange(len(texts)) < len(attacks)
    alone = flagger.flags(texts)
    rows = []
    for chars in options.padding_chars if documents else ():
        for side in _SIDES:
            padded = []
            for text in texts:
                piece = piece_of(rng.choice(documents), (chars, chars), rng)
                pair = (piece, text) if side == "before" else (text, piece)
                padded.append(_JOINT.join(pair))
            flags = flagger.flags(padded)
            rows.append(
                PaddingRow(
                    side=side,
                    chars=chars,
                    recall=rate_of(flags[is_attack]),
                    ratio=ratio_of(alone[is_attack], flags[is_attack], options.seed),
                    fpr=rate_of(flags[~is_attack]),
                )
            )
    return PaddingTable(
        attack=len(attacks),
        benign=len(benign),
        recall=rate_of(alone[is_attack]),
        fpr=rate_of(alone[~is_attack]),
        status=flagger.take_status(),
        rows=tuple(rows),
    )
