"""How detection holds up where it is hardest: disguised texts, payloads in long documents, attacks
beside unrelated text.

The tables compare a text with itself: an encoded attack with the same attack in plain writing, a
payload inside a document with the payload alone. Harmless texts go through the same treatment, so
that a detector that flags every disguise, or every long document, does not look good.

Results hold counts, rates and intervals, never a text.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from raxe_fast.training.augment_encodings import ENCODINGS
from raxe_fast.training.corpus import Record
from raxe_fast.training.metrics import rate
from raxe_fast.training.robustness_documents import Placed, build_documents, place
from raxe_fast.training.robustness_encodings import ALL_ENCODINGS, carry
from raxe_fast.training.robustness_padding import measure_padding
from raxe_fast.training.robustness_results import (
    PLAIN,
    EncodingRow,
    LongDocuments,
    ObfuscationTable,
    PositionRow,
    Robustness,
    RobustnessOptions,
)
from raxe_fast.training.robustness_shared import (
    Flagger,
    grouped_rate,
    rate_of,
    ratio_of,
    short_texts,
)

if TYPE_CHECKING:
    from raxe_fast import Policy, Scanner, ScanResult

__all__ = ["measure_robustness"]


def _obfuscation(
    records: Sequence[Record], options: RobustnessOptions, flagger: Flagger
) -> ObfuscationTable:
    rng = random.Random(options.seed)
    attacks, benign = short_texts(records, options, rng)
    texts = attacks + benign
    is_attack = np.arange(len(texts)) < len(attacks)
    plain = flagger.flags(texts)
    rows = []
    for name, encoder in {PLAIN: None, **ALL_ENCODINGS}.items():
        written = [
            text if encoder is None else encoder(text, random.Random(f"{options.seed}/{name}/{i}"))
            for i, text in enumerate(texts)
        ]
        changed = np.array(
            [encoder is None or a != b for a, b in zip(texts, written, strict=True)], dtype=np.bool_
        )
        kept = [text for text, use in zip(written, changed, strict=True) if use]
        carried = [
            carry(name if encoder else "plain text", text, i)
            for i, (text, use) in enumerate(zip(written, changed, strict=True))
            if use
        ]
        attack = is_attack[changed]
        for carrier in (False, True):
            if encoder is None and not carrier:
                flags = plain
            else:
                flags = flagger.flags(carried if carrier else kept)
            before = plain[changed][attack]
            rows.append(
                EncodingRow(
                    encoding=name,
                    carrier=carrier,
                    augmented=name in ENCODINGS,
                    unchanged=int(np.sum(~changed)),
                    recall=rate_of(flags[attack]),
                    plain_recall=rate_of(before),
                    # Plain writing is the same as itself: that is no measurement.
                    ratio=ratio_of(before, flags[attack], options.seed)
                    if encoder is not None or carrier
                    else {"value": 1.0 if before.any() else None, "interval": None},
                    fpr=rate_of(flags[~attack]),
                )
            )
    return ObfuscationTable(len(attacks), len(benign), flagger.take_status(), tuple(rows))


def _payloads(records: Sequence[Record], options: RobustnessOptions, scanner: Scanner) -> list[str]:
    """As many payloads of the wanted length as the documents need, or all there are."""
    low, high = options.payload_tokens
    # No tokenizer makes more than a token of a character; a token of twenty is rare.
    candidates = sorted(
        {
            r.text.strip()
            for r in records
            if r.label == 1
            and r.family in options.payload_families
            and low <= len(r.text.strip()) <= 20 * high
        }
    )
    random.Random(options.seed).shuffle(candidates)
    found: list[str] = []
    for text in candidates:
        if len(found) == options.documents * options.payloads:
            break
        if low <= scanner.count_tokens(text) <= high:
            found.append(text)
    return found


def _overlaps(result: ScanResult, placed: Placed) -> bool:
    window = result.window
    return window is not None and window[0] < placed.end and placed.begin < window[1]


def _long_documents(
    records: Sequence[Record], options: RobustnessOptions, flagger: Flagger
) -> LongDocuments:
    # Whichever model answers: the documents of two scanners with one large model are the same.
    count_tokens = flagger.scanner.count_tokens
    payloads = _payloads(records, options, flagger.scanner)
    documents = build_documents(
        [r.text for r in records if r.label == 0 and r.subfamily in options.document_subfamilies],
        count=options.documents,
        tokens=options.document_tokens,
        count_tokens=count_tokens,
        seed=options.seed,
    )
    clean = flagger.flags(documents)
    tokens = [count_tokens(document) for document in documents]
    alone = flagger.flags(payloads)
    # Fewer payloads than documents: they are used in turn.
    chosen = [
        [payloads[(i * options.payloads + j) % len(payloads)] for j in range(options.payloads)]
        for i in range(len(documents) if payloads else 0)
    ]
    flags = np.zeros((len(chosen), options.positions, options.payloads), dtype=np.bool_)
    located = np.zeros_like(flags)
    actual = np.zeros(flags.shape)
    fractions = [k / (options.positions - 1) for k in range(options.positions)]
    for i, document in enumerate(documents[: len(chosen)]):
        for k, fraction in enumerate(fractions):
            placed = [place(document, payload, fraction) for payload in chosen[i]]
            for j, result in enumerate(flagger.scan(item.text for item in placed)):
                flags[i, k, j] = result.is_threat
                located[i, k, j] = result.is_threat and _overlaps(result, placed[j])
                # A share of the document alone: the payload itself stands on neither side.
                around = len(placed[j].text) - (placed[j].end - placed[j].begin)
                actual[i, k, j] = placed[j].begin / around
    rows = tuple(
        PositionRow(
            position=fraction,
            actual=float(actual[:, k].mean()) if len(chosen) else None,
            recall=rate_of(flags[:, k].ravel()),
            located=rate(int(located[:, k].sum()), int(flags[:, k].sum())),
        )
        for k, fraction in enumerate(fractions)
    )
    by_document = flags.reshape(len(chosen), options.positions * options.payloads)
    return LongDocuments(
        documents=len(documents),
        payloads=len(payloads),
        tokens={
            "mean": float(np.mean(tokens)) if tokens else 0.0,
            "least": min(tokens, default=0),
            "most": max(tokens, default=0),
        },
        status=flagger.take_status(),
        recall=grouped_rate(by_document, options.seed),
        gained=grouped_rate(by_document[~clean[: len(chosen)]], options.seed),
        short_recall=rate_of(alone),
        fpr=rate_of(clean),
        rows=rows,
    )


def measure_robustness(
    scanner: Scanner,
    records: Sequence[Record],
    policy: Policy,
    options: RobustnessOptions | None = None,
    *,
    progress: bool = False,
) -> Robustness:
    """All tables, from the texts of ``records``; the same input gives the same result.

    A corpus without fitting texts gives tables whose rates have the value None. ``progress`` shows
    the number of scans on standard error.
    """
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    options = options or RobustnessOptions()
    columns = (
        SpinnerColumn(),
        TextColumn("robustness: {task.completed:,.0f} texts"),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not progress) as display:
        task = display.add_task("robustness", total=None)
        flagger = Flagger(scanner, policy, lambda count: display.advance(task, count))
        return Robustness(
            options,
            _obfuscation(records, options, flagger),
            _long_documents(records, options, flagger),
            measure_padding(records, options, flagger),
        )
