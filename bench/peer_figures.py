"""Figures of several detectors on the same texts, and where one is not ahead of the others."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raxe_fast.training import metrics
from raxe_fast.training.corpus import Record
from raxe_fast.training.outcomes import length_bucket

__all__ = ["INJECTION_FAMILIES", "Verdicts", "behind", "figures", "slices", "two_sided_sign_p"]

# What the rivals say they are for. Plain requests for harmful content, personal data or shell
# payloads are outside of it.
INJECTION_FAMILIES = (
    "prompt_injection",
    "indirect_injection",
    "jailbreak",
    "system_prompt_extraction",
    "encoding_obfuscation",
)

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Verdicts:
    """One detector's answers, (N,) each, in the order of the records.

    flagged: its own decision; False and without meaning where there is an error. scores: NaN
    where it gave none. errors: "" or a kind of error.
    """

    flagged: NDArray[np.bool_]
    scores: NDArray[np.float64]
    errors: Sequence[str]
    notes: Sequence[str]

    @property
    def answered(self) -> NDArray[np.bool_]:
        return np.array([not error for error in self.errors], dtype=np.bool_)

    @classmethod
    def of(cls, answers: Sequence[Mapping[str, Any]]) -> Verdicts:
        """From answers of peer_workers.py. ValueError if one is neither a verdict nor an error."""
        flagged = np.zeros(len(answers), dtype=np.bool_)
        scores = np.full(len(answers), np.nan)
        errors, notes = [""] * len(answers), [""] * len(answers)
        for i, answer in enumerate(answers):
            if answer.get("error"):
                errors[i] = str(answer["error"])
                continue
            if not isinstance(answer.get("flagged"), bool):
                raise ValueError(f"answer {i} is neither a verdict nor an error")
            flagged[i] = answer["flagged"]
            if answer.get("score") is not None:
                scores[i] = answer["score"]
            notes[i] = str(answer.get("note") or "")
        return cls(flagged, scores, errors, notes)


def slices(records: Sequence[Record], tokens: Sequence[int]) -> dict[str, dict[str, Rows]]:
    """Positions by kind of slice and name. Families hold attacks alone, subfamilies harmless texts
    alone, the rest both. `tokens`: token count of each text, negative if unknown."""
    keys: dict[str, Callable[[Record, int], str | None]] = {
        "overall": lambda record, n: "all texts",
        "injection": lambda record, n: (
            "injection families and all harmless texts"
            if not record.label or record.family in INJECTION_FAMILIES
            else None
        ),
        "family": lambda record, n: (record.family or "unnamed") if record.label else None,
        "benign_subfamily": lambda record, n: (
            None if record.label else record.subfamily or "unnamed"
        ),
        "language": lambda record, n: record.lang or "und",
        "length": lambda record, n: length_bucket(n) if n >= 0 else "unknown",
    }
    out: dict[str, dict[str, Rows]] = {}
    for kind, key in keys.items():
        found: dict[str, list[int]] = {}
        for i, record in enumerate(records):
            name = key(record, tokens[i])
            if name is not None:
                found.setdefault(name, []).append(i)
        out[kind] = {name: np.array(found[name], dtype=np.int64) for name in sorted(found)}
    return out


def figures(labels: Rows, verdicts: Verdicts, rows: Rows, *, ranking: bool) -> dict[str, Any]:
    """Rates of some rows. Texts with an error are in no rate; their number stands beside it.

    `ranking` adds F1 and AUC with bootstrap intervals; AUC is over the texts that have a score.
    """
    kept = rows[verdicts.answered[rows]]
    counts = metrics.count(labels[kept], verdicts.flagged[kept])
    out: dict[str, Any] = {
        "texts": len(rows),
        "errors": len(rows) - len(kept),
        "confusion": {"tp": counts.tp, "fp": counts.fp, "tn": counts.tn, "fn": counts.fn},
        "recall": metrics.rate(counts.tp, counts.attack),
        "fpr": metrics.rate(counts.fp, counts.benign),
    }
    if not ranking:
        return out
    out["precision"] = metrics.rate(counts.tp, counts.tp + counts.fp)
    out["f1"] = {"value": counts.f1, "interval": metrics.f1_interval(counts)}
    scored = kept[np.isfinite(verdicts.scores[kept])]
    without = np.setdiff1d(kept, scored)
    scores = verdicts.scores[scored]
    out["auc"] = {
        "value": metrics.roc_auc(labels[scored], scores),
        "interval": metrics.auc_interval(labels[scored], scores),
        "texts": len(scored),
        "attack_without_score": int(np.sum(labels[without] == 1)),
        "benign_without_score": int(np.sum(labels[without] == 0)),
    }
    at = metrics.recall_at_fpr(labels[scored], scores, 0.01)
    out["recall_at_fpr_0.01"] = None if at is None else at[0]
    return out


def two_sided_sign_p(wins: int, losses: int) -> float:
    """Exact two-sided p of the sign test, McNemar's on paired answers; 1 without a difference."""
    n, least = wins + losses, min(wins, losses)
    tail = sum(math.comb(n, k) for k in range(least + 1))
    return min(1.0, float(2 * tail / 2**n))


def behind(
    labels: Rows,
    ours: Verdicts,
    theirs: Mapping[str, Verdicts],
    groups: Mapping[str, Mapping[str, Rows]],
) -> list[dict[str, Any]]:
    """Every slice in which `ours` does not have the higher recall, or the lower FPR, than a rival.

    Compared on the texts that both answered. `standing` is "behind" or "level"; wins and losses
    are texts that only ours, or only the rival, got right, p their sign test.
    """
    out: list[dict[str, Any]] = []
    for rival, verdicts in theirs.items():
        both = ours.answered & verdicts.answered
        for kind, members in groups.items():
            for name, rows in members.items():
                for figure, label in (("recall", 1), ("fpr", 0)):
                    kept = rows[both[rows] & (labels[rows] == label)]
                    right = ours.flagged[kept] == label
                    rival_right = verdicts.flagged[kept] == label
                    wins, losses = (
                        int(np.sum(right & ~rival_right)),
                        int(np.sum(~right & rival_right)),
                    )
                    if len(kept) == 0 or wins > losses:
                        continue
                    out.append(
                        {
                            "rival": rival,
                            "kind": kind,
                            "slice": name,
                            "figure": figure,
                            "standing": "behind" if losses > wins else "level",
                            "ours": float(np.mean(ours.flagged[kept])),
                            "theirs": float(np.mean(verdicts.flagged[kept])),
                            "texts": len(kept),
                            "wins": wins,
                            "losses": losses,
                            "p": two_sided_sign_p(wins, losses),
                        }
                    )
    return out
