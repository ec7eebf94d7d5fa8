"""Dev attacks as an attacker who knows the screening stage would send them, for the choice of what
it may clear."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from raxe_fast.training.corpus import Record
from raxe_fast.training.evasion import (
    PLACES,
    Rule,
    carrier_sentences,
    pad,
    padding_rules,
    rules,
    search,
    sentences,
)
from raxe_fast.training.screening_choice import DevText

__all__ = ["PADDING", "Disguise", "attempts", "grouped"]

PADDING = (50, 150, 400)  # tokens of harmless sentences
_BUDGET = 60
_SEED = 7  # not that of reports

# By kind of disguise, for each attack the texts of which the attacker may send any.
Disguise = dict[str, list[list[Record]]]


def attempts(
    records: Sequence[Record],
    size: int,
    worth: Callable[[str], float],
    count_tokens: Callable[[str], int],
    *,
    jobs: int = 1,
) -> Disguise:
    """Variants of ``size`` attacks drawn from ``records`` (all of them if there are no more).

    They are padded with sentences of the harmless records, one place drawn for each amount; and
    there is everything that a search for the lowest ``worth`` found on its way, by edits and by
    edits and padding. The way, and not its end alone: where an attacker stops depends on the bound
    that is to be chosen."""
    rng = random.Random(_SEED)
    attacks = [r for r in records if r.label == 1 and r.text.strip()]
    attacks = rng.sample(attacks, min(size, len(attacks)))
    harmless = [r.text for r in records if r.label == 0]
    filler = carrier_sentences(harmless, rng, count_tokens)
    made: Disguise = {}
    if next(filler, None) is not None:
        for tokens in PADDING:
            made[f"padded {tokens}"] = [
                [_like(r, pad(r.text, filler, tokens, rng.choice(PLACES), count_tokens))]
                for r in attacks
            ]
    short = [text for text in harmless if len(sentences(text)) == 1 and len(text) <= 200]
    edits = rules("fit")
    for name, some in (("picked", edits), ("picked, padded", (*edits, *padding_rules(short)))):

        def way(record: Record, some: Sequence[Rule] = some) -> list[Record]:
            found = search(record.text, some, worth, budget=_BUDGET, seed=_SEED)
            return [_like(record, text) for text, _ in found.trail]

        with ThreadPoolExecutor(jobs) as pool:  # the screening network releases the GIL
            made[name] = list(pool.map(way, attacks))
    return made


def grouped(disguise: Disguise, described: Mapping[str, DevText]) -> dict[str, list[list[DevText]]]:
    """The same with what is known of each text; texts of which nothing is known are left out."""
    return {
        name: [[described[r.text] for r in group if r.text in described] for group in groups]
        for name, groups in disguise.items()
    }


def _like(record: Record, text: str) -> Record:
    return replace(record, text=text)
