"""Leave-sources-out: how well texts are judged whose source nobody has learnt from.

The sources of a corpus are dealt into folds. For each fold an encoder is fine-tuned from the base
without its sources (and without texts that share a group with one of theirs: a clean carrier must
not stay behind when its injected copy goes), an n-gram model fitted likewise, and both combined
by a logistic model on the dev texts of the other sources, where the threshold is set, too. Then
every source of the fold is judged. The forests play no part: what is measured is what the encoder
and the n-grams carry over, under a budget of minutes; the shipped model learnt far longer, from
all sources, and nothing can be measured on a source it has seen.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from raxe_fast.errors import CorpusError
from raxe_fast.training.calibrate import fit_stack, worst_rows
from raxe_fast.training.corpus import Record, find_split, read_corpus
from raxe_fast.training.folds import Holdout, group_key
from raxe_fast.training.metrics import Floats, Ints, rate
from raxe_fast.training.ngrams import BINARY_BITS, fit_binary_ngrams, ngram_matrix, ngram_scores
from raxe_fast.training.own_data import read_own_texts

if TYPE_CHECKING:
    from raxe_fast.training.finetune_options import FinetuneOptions
    from raxe_fast.training.finetune_trainer import Report, Trainer

__all__ = ["SourceFoldOptions", "deal_sources", "leave_sources_out", "summary"]

_SAMPLE = 120  # texts of one source and label
_FEWEST = 10  # a source with fewer says nothing about its rate
_FPR = 0.01


@dataclass(frozen=True, slots=True)
class SourceFoldOptions:
    """``folds`` fine-tuning runs of ``finetune.max_minutes`` each; ``only`` names the folds to
    run (all unless given)."""

    finetune: FinetuneOptions
    folds: int = 4
    only: tuple[int, ...] | None = None
    seed: int = 0


def deal_sources(records: Sequence[Record], folds: int, seed: int = 0) -> dict[str, int]:
    """A fold for every source: sources by falling size, each to the fold that holds the fewest
    texts of its kind (attacks, or harmless), equal ones by a seeded hash.

    Raises ValueError for fewer than 2 folds, fewer sources than folds, or where a fold gets none
    because there are too few sources of either kind.
    """
    sizes: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for record in records:
        sizes[record.source][record.label] += 1
    if folds < 2 or len(sizes) < folds:
        raise ValueError(f"{len(sizes)} sources cannot be dealt into {folds} folds")

    def tie(name: str) -> str:
        return hashlib.sha256(f"{seed}:{name}".encode("utf-8", "surrogatepass")).hexdigest()

    load = np.zeros((folds, 2), dtype=np.int64)
    dealt: dict[str, int] = {}
    for name in sorted(sizes, key=lambda n: (-max(sizes[n]), tie(n))):
        kind = int(sizes[name][1] >= sizes[name][0])
        fold = int(np.argmin(load[:, kind]))
        dealt[name] = fold
        load[fold] += sizes[name]
    if len(set(dealt.values())) < folds:
        raise ValueError(f"there are too few attack and harmless sources for {folds} folds")
    return dealt


def leave_sources_out(
    corpus: Path,
    encoder: str,
    work: Path,
    options: SourceFoldOptions,
    report: Report | None = None,
) -> dict[str, Any]:
    """Rates by source, each from a model that has not seen it; see the module's text.

    Raises CorpusError, ModelError and ValueError as fine-tuning does; CorpusError for a training
    text without id, and ValueError for sources that cannot be dealt or a fold that does not exist.
    """
    from raxe_fast.training.encoder_source import load_source
    from raxe_fast.training.finetune_inputs import Inputs
    from raxe_fast.training.finetune_trainer import Trainer

    path = find_split(corpus, "train")
    records = read_corpus(path, limit=options.finetune.limit).records
    for record in records:
        if not record.id:
            # Texts are left out by id; this one would be learnt from wherever it belongs.
            raise CorpusError("leaving sources out needs an id", path=path, line=record.line)
    dev = read_corpus(find_split(corpus, "dev"), limit=options.finetune.limit).records
    dealt = deal_sources(records, options.folds, options.seed)
    rows: list[dict[str, Any]] = []
    folds: list[dict[str, Any]] = []
    chosen = range(options.folds) if options.only is None else dict.fromkeys(options.only)
    unknown = sorted(set(chosen) - set(range(options.folds)))
    if unknown:
        raise ValueError(f"there is no fold {unknown[0]} among {options.folds}, counted from 0")
    for fold in chosen:
        out = {name for name, number in dealt.items() if number == fold}
        groups = {group_key(r) for r in records if r.source in out}
        left = [r for r in records if r.source in out or group_key(r) in groups]
        run = replace(
            options.finetune,
            holdout=Holdout(None, 10),
            exclude=options.finetune.exclude | frozenset(r.id for r in left),
        )
        source = load_source(encoder)
        trainer = Trainer(Inputs.read(corpus, source, run), source, run, work / f"fold{fold}")
        trainer.report = report
        # All of dev is judged below; the minutes are for training.
        trainer.final_dev = trainer.dev
        info = trainer.run()
        known = [r for r in records if r.id not in run.exclude]
        own = [item.record for item in read_own_texts()] if run.own_texts else []
        judge = _judge(trainer, [*known, *own], [r for r in dev if r.source not in out])
        for name in sorted(out):
            rows += _rates(name, [r for r in records if r.source == name], judge, options.seed)
        folds.append(
            {
                "fold": fold,
                "sources": sorted(out),
                "texts_left_out": len(left),
                "minutes": info["minutes"],
                "tokens": info["tokens"],
                "samples": info["samples"],
            }
        )
    return {"folds": folds, "sources": rows, **summary(rows)}


def _judge(
    trainer: Trainer, known: Sequence[Record], dev: Sequence[Record]
) -> Callable[[Sequence[Record]], Any]:
    """A function that says which records are flagged, at 1 % false positives on ``dev``."""
    from raxe_fast.training.finetune_eval import window_logits

    ngrams = fit_binary_ngrams(
        ngram_matrix([r.text for r in known], BINARY_BITS),
        np.array([r.label for r in known], dtype=np.int64),
    )

    def evidence(records: Sequence[Record]) -> tuple[Floats, Ints]:
        logits, owner = window_logits(trainer, [r.text for r in records])
        lexical = ngram_scores(ngrams, ngram_matrix([r.text for r in records], BINARY_BITS))
        full = np.zeros((len(owner), 6))
        full[:, 2:4], full[:, 4] = logits, lexical[owner, 0]
        return full, owner

    labels = np.array([r.label for r in dev], dtype=np.int64)
    seen, owner = evidence(dev)
    weights = np.array(fit_stack(seen, owner, labels))

    def scores(full: Floats, owner: Ints) -> Floats:
        total = full @ weights
        worst: Floats = total[worst_rows(total, owner)]
        return worst

    threshold = float(np.quantile(scores(seen, owner)[labels == 0], 1 - _FPR))
    return lambda records: scores(*evidence(records)) > threshold


def _rates(
    name: str, records: Sequence[Record], judge: Callable[[Sequence[Record]], Any], seed: int
) -> list[dict[str, Any]]:
    rows = []
    for label in (1, 0):
        texts = [r for r in records if r.label == label]
        if len(texts) < _FEWEST:
            continue
        chosen = np.random.default_rng(seed).permutation(len(texts))[:_SAMPLE]
        flagged = judge([texts[i] for i in chosen])
        rows.append({"source": name, "label": label, **rate(int(np.sum(flagged)), len(chosen))})
    return rows


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Median and worst recall of the attack sources, median and worst FPR of the harmless ones;
    None where there is none."""
    recall = [row["value"] for row in rows if row["label"] == 1]
    fpr = [row["value"] for row in rows if row["label"] == 0]
    return {
        "threshold_fpr": _FPR,
        "median_recall": median(recall) if recall else None,
        "worst_recall": min(recall) if recall else None,
        "median_fpr": median(fpr) if fpr else None,
        "worst_fpr": max(fpr) if fpr else None,
    }
