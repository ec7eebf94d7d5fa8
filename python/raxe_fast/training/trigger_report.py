"""Precision and recall of the triggers on a labelled corpus: by family, by severity, and as L1.

    python -m raxe_fast.training.trigger_report --corpus FILE [--train FILE] [--output json]

L1 is the rule-based detector: a text is flagged when the noisy-or of the weights of its triggers
reaches the threshold. Weights come from `--train` as they do for a shipped model, or from a
model's `triggers.json`, or are the defaults of the severities.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raxe_fast import _core
from raxe_fast.errors import RaxeFastError
from raxe_fast.training.corpus import Corpus, read_corpus
from raxe_fast.training.metrics import Ints, rate
from raxe_fast.training.trigger_weights import fired_counts, fit_weights
from raxe_fast.training.triggers import SEVERITIES, compile_triggers, load_source

__all__ = ["build_report", "main"]

L1_THRESHOLD = 0.5
_NOISY_SHOWN = 20

Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Fired:
    """What fired where: `hits` (texts, triggers), and the rule score of each text."""

    hits: Bools
    scores: NDArray[np.float64]


def _match(compiled: dict[str, Any], texts: Sequence[str]) -> _Fired:
    matcher = _core.TriggerSet(compiled["triggers"])
    hits = np.zeros((len(texts), len(compiled["triggers"])), np.bool_)
    for row, text in enumerate(texts):
        hits[row, [match[0] for match in matcher.match(text)]] = True
    weights = np.array([trigger["weight"] for trigger in compiled["triggers"]])
    return _Fired(hits, 1.0 - np.where(hits, 1.0 - weights, 1.0).prod(axis=1))


def _any(hits: Bools) -> Bools:
    return np.asarray(hits.any(axis=1), np.bool_)


def _detector(fired: Bools, labels: Ints) -> dict[str, Any]:
    attack = labels == 1
    tp, fp = int(np.sum(fired & attack)), int(np.sum(fired & ~attack))
    return {
        "precision": rate(tp, tp + fp),
        "recall": rate(tp, int(np.sum(attack))),
        "fpr": rate(fp, int(np.sum(~attack))),
    }


def _families(
    compiled: dict[str, Any], fired: _Fired, corpus: Corpus, labels: Ints, flagged: Bools
) -> dict[str, Any]:
    own = np.array([trigger["family"] for trigger in compiled["triggers"]])
    said = np.array([record.family for record in corpus.records])
    out: dict[str, Any] = {}
    for family in sorted({*own.tolist(), *said[labels == 1].tolist()} - {""}):
        here = (said == family) & (labels == 1)
        hits = _any(fired.hits[:, own == family])
        right, total = int(np.sum(hits & here)), int(np.sum(here))
        out[family] = {
            "triggers": int(np.sum(own == family)),
            # Of the texts in which a trigger of the family fires: of the family, or any attack.
            "precision": rate(right, int(np.sum(hits))),
            "precision_any_attack": rate(int(np.sum(hits & (labels == 1))), int(np.sum(hits))),
            # Of the attacks of the family: its own triggers, any trigger, L1.
            "recall": rate(right, total),
            "recall_any_trigger": rate(int(np.sum(_any(fired.hits) & here)), total),
            "recall_l1": rate(int(np.sum(flagged & here)), total),
        }
    return out


def _subfamilies(corpus: Corpus, labels: Ints, fired: _Fired, flagged: Bools) -> dict[str, Any]:
    said = np.array([record.subfamily for record in corpus.records])
    any_hit = _any(fired.hits)
    out: dict[str, Any] = {}
    for name in sorted(set(said[labels == 1].tolist()) - {""}):
        here = (said == name) & (labels == 1)
        total = int(np.sum(here))
        out[name] = {
            "recall_any_trigger": rate(int(np.sum(any_hit & here)), total),
            "recall_l1": rate(int(np.sum(flagged & here)), total),
        }
    return out


def _noisy(compiled: dict[str, Any], fired: _Fired, corpus: Corpus, labels: Ints) -> list[Any]:
    benign, attack = labels != 1, labels == 1
    false = fired.hits[benign].sum(axis=0)
    order = np.argsort(-false, kind="stable")[:_NOISY_SHOWN]
    out = []
    for index in order[false[order] > 0].tolist():
        trigger = compiled["triggers"][index]
        rows = np.flatnonzero(fired.hits[:, index] & benign).tolist()
        sources = Counter(corpus.records[row].source for row in rows)
        true = int(np.sum(fired.hits[attack, index]))
        out.append(
            {
                "name": trigger["name"],
                "severity": trigger["severity"],
                "weight": trigger["weight"],
                "precision": rate(true, true + len(rows)),
                "benign_sources": dict(sources.most_common(5)),
            }
        )
    return out


def build_report(
    compiled: dict[str, Any], corpus: Corpus, threshold: float = L1_THRESHOLD
) -> dict[str, Any]:
    """The report as JSON-safe data; every proportion has its counts and its Wilson interval.

    `compiled` is the content of `triggers.json`. Raises ValueError for a corpus without records.
    """
    if not len(corpus):
        raise ValueError("the corpus has no records")
    labels = np.array([record.label for record in corpus.records], np.int64)
    fired = _match(compiled, corpus.texts)
    flagged = fired.scores >= threshold
    severities = np.array([trigger["severity"] for trigger in compiled["triggers"]])
    benign_sources = Counter(
        corpus.records[row].source for row in np.flatnonzero(flagged & (labels != 1)).tolist()
    )
    return {
        "schema": 1,
        "texts": len(corpus),
        "attack": int(np.sum(labels == 1)),
        "benign": int(np.sum(labels != 1)),
        "triggers": len(severities),
        "phrases": sum(len(trigger["phrases"]) for trigger in compiled["triggers"]),
        "literals": sum(len(trigger["literals"]) for trigger in compiled["triggers"]),
        "l1": {"threshold": threshold, **_detector(flagged, labels)},
        "any_trigger": _detector(_any(fired.hits), labels),
        "severities": {
            name: {
                "triggers": int(np.sum(severities == name)),
                **_detector(_any(fired.hits[:, severities == name]), labels),
            }
            for name in SEVERITIES
        },
        "families": _families(compiled, fired, corpus, labels, flagged),
        "subfamilies": _subfamilies(corpus, labels, fired, flagged),
        "noisy": _noisy(compiled, fired, corpus, labels),
        "l1_false_positive_sources": dict(benign_sources.most_common(15)),
    }


def _compiled(train: Path | None, model: Path | None) -> tuple[dict[str, Any], str]:
    if model is not None:
        loaded: dict[str, Any] = json.loads(model.read_text(encoding="utf-8"))
        return loaded, "model"
    source = load_source()
    compiled = compile_triggers(source)
    if train is None:
        return compiled, "severity defaults"
    learn = read_corpus(train)
    matcher = _core.TriggerSet(compiled["triggers"])
    labels = np.array([record.label for record in learn.records], np.int64)
    attack, benign = fired_counts(
        learn.texts,
        labels,
        lambda text: (match[0] for match in matcher.match(text)),
        len(compiled["triggers"]),
    )
    return compile_triggers(source, fit_weights(compiled["triggers"], attack, benign)), "train"


def _cell(part: dict[str, Any]) -> str:
    if part["value"] is None:
        return "-"
    low, high = part["interval"]
    return f"{part['value']:.3f} [{low:.3f}, {high:.3f}] {part['count']}/{part['total']}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def format_report(report: dict[str, Any]) -> str:
    """The report as text tables: value, 95 % interval and counts."""
    detectors = {
        f"L1 (rule score >= {report['l1']['threshold']})": report["l1"],
        "any trigger": report["any_trigger"],
        **{f"severity {name}": part for name, part in report["severities"].items()},
    }
    rates = ["precision", "recall", "fpr"]
    head = [["detector", *rates]]
    head += [[name, *(_cell(part[key]) for key in rates)] for name, part in detectors.items()]
    rates = ["precision", "precision_any_attack", "recall", "recall_any_trigger", "recall_l1"]
    families = [["family", "triggers", *rates]]
    families += [
        [name, str(part["triggers"]), *(_cell(part[key]) for key in rates)]
        for name, part in report["families"].items()
    ]
    noisy = [["noisy trigger", "severity", "precision"]]
    noisy += [
        [part["name"], part["severity"], _cell(part["precision"])] for part in report["noisy"]
    ]
    title = (
        f"{report['triggers']} triggers, {report['phrases']} phrases, {report['literals']} literals"
        f"; {report['attack']} attacks, {report['benign']} harmless texts"
    )
    return "\n\n".join([title, _table(head), _table(families), _table(noisy)])


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 0, or 2 for a bad corpus or source."""
    parser = argparse.ArgumentParser(prog="python -m raxe_fast.training.trigger_report")
    parser.add_argument("--corpus", type=Path, required=True, help="labelled JSONL, plain or gzip")
    parser.add_argument("--train", type=Path, help="labelled JSONL to learn the weights from")
    parser.add_argument("--triggers", type=Path, help="a model's triggers.json, instead of --train")
    parser.add_argument("--threshold", type=float, default=L1_THRESHOLD)
    parser.add_argument("--output", choices=("text", "json"), default="text")
    options = parser.parse_args(arguments)
    try:
        compiled, weights = _compiled(options.train, options.triggers)
        report = build_report(compiled, read_corpus(options.corpus), options.threshold)
    except (RaxeFastError, OSError, ValueError) as error:
        print(f"trigger_report: {error}", file=sys.stderr)
        return 2
    report["weights"] = weights
    print(json.dumps(report, indent=1) if options.output == "json" else format_report(report))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
