"""MODEL_CARD.md: what the model is, what it was made from, what it measured and where it fails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from raxe_fast.training.corpus import Record

__all__ = ["data_table", "write_card"]

_WORST = 12


def _percent(item: dict[str, Any]) -> str:
    value = item["value"]
    if value is None:
        return "-"
    low, high = item["interval"]
    return (
        f"{100 * value:.2f} % ({item['count']}/{item['total']}; {100 * low:.2f}-{100 * high:.2f} %)"
    )


def _number(value: float | None, interval: Sequence[float] | None = None) -> str:
    if value is None:
        return "-"
    span = f" ({interval[0]:.4f}-{interval[1]:.4f})" if interval else ""
    return f"{value:.4f}{span}"


def data_table(records: Sequence[Record]) -> list[tuple[str, int, int]]:
    """(licence, attacks, harmless texts) of the training records, largest first."""
    attack = Counter(r.license or "not recorded" for r in records if r.label == 1)
    benign = Counter(r.license or "not recorded" for r in records if r.label == 0)
    names = sorted({*attack, *benign}, key=lambda n: (-(attack[n] + benign[n]), n))
    return [(name, attack[name], benign[name]) for name in names]


def _figures(reports: dict[str, dict[str, Any]]) -> list[str]:
    names = list(reports)
    lines = [
        "| figure | " + " | ".join(names) + " |",
        "|---|" + "---|" * len(names),
    ]

    def row(title: str, cells: list[str]) -> None:
        lines.append(f"| {title} | " + " | ".join(cells) + " |")

    overall = [report["overall"] for report in reports.values()]
    row("texts (attack / harmless)", [f"{o['attack']} / {o['benign']}" for o in overall])
    for name in ("f1", "auc"):
        row(
            name.upper(),
            [_number(o[name]["value"], o[name].get("interval")) if name in o else "-"
             for o in overall],
        )  # fmt: skip
    titles = {
        "fpr": "false-positive rate",
        "fnr": "false-negative rate",
        "precision": "precision",
        "recall_at_fpr_0.01": "recall at 1 % FPR",
        "recall_at_fpr_0.001": "recall at 0.1 % FPR",
    }
    for name, title in titles.items():
        row(title, [_percent(o[name]) if name in o else "-" for o in overall])
    for side, title in (
        ("fpr", "harmless texts blocked or warned about"),
        ("fnr", "attacks neither blocked nor warned about"),
    ):
        row(title, [_percent(r["at_warn"][side]) for r in reports.values()])
    for name in ("ece", "log_loss"):
        title = name.replace("_", "-")
        row(title, [_number(o[name]["value"]) if name in o else "-" for o in overall])
    for head in ("family", "subfamily"):
        for view, title in (
            ("all_attacks", "all attacks"),
            ("detected", "detected attacks"),
            ("end_to_end", "end to end"),
        ):
            row(
                f"{head} macro-F1, {title}",
                [_number(r[head][view]["macro_f1"], r[head][view]["interval"])
                 for r in reports.values()],
            )  # fmt: skip
    return lines


def _presets(report: dict[str, Any], thresholds: dict[str, dict[str, float]]) -> list[str]:
    lines = [
        "| preset | block | harmless texts blocked | attacks missed | warn | harmless texts warned "
        "about or blocked | attacks neither |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, value in thresholds.items():
        rates = report["presets"][name]
        blocked, warned = (
            f"{_percent(part['fpr'])} | {_percent(part['fnr'])}"
            for part in (rates, rates["at_warn"])
        )
        lines.append(
            f"| {name} | {value['block']:.4f} | {blocked} | {value['warn']:.4f} | {warned} |"
        )
    return lines


def _groups(report: dict[str, Any], key: str) -> list[str]:
    lines = ["| | recall | FPR |", "|---|---|---|"]
    for name, row in report[key].items():
        lines.append(f"| {name} | {_percent(row['recall'])} | {_percent(row['fpr'])} |")
    return lines


def _worst(report: dict[str, Any], key: str, side: str, minimum: int) -> list[str]:
    """The worst groups of at least `minimum` texts by FNR or FPR."""
    rows = [
        (name, row[side])
        for name, row in report[key].items()
        if row[side]["total"] >= minimum and row[side]["count"]
    ]
    rows.sort(key=lambda pair: (-pair[1]["value"], pair[0]))
    title = "missed attacks" if side == "fnr" else "false alarms"
    return [
        f"| {key.removeprefix('by_')} | {title} |",
        "|---|---|",
        *(f"| {name} | {_percent(item)} |" for name, item in rows[:_WORST]),
    ]


_FROZEN = (
    " A frozen general-purpose encoder does not separate attacks from harmless texts that resemble "
    "them; the encoder has to be tuned for that (`raxe-fast finetune`)."
)


def _tuning(training: dict[str, Any]) -> str:
    holdout, again = training["holdout"], training["learn_seen"]
    if holdout is None:
        return "frozen"
    if training.get("new_corpus"):
        found = (
            "fine-tuned on another corpus; the binary forest was fitted on all texts of this one"
        )
    else:
        found = (
            "fine-tuned on the training texts but for one group-wise fold of "
            f"{holdout['folds']}, on which the binary forest was fitted"
        )
    if again["texts"]:
        found += f" (and on {again['texts']} texts that the encoder has seen: "
        found += ", ".join(again["sources"]) + ")"
    return found


def _pairs(encoder: dict[str, Any]) -> str:
    rows = encoder.get("pair_rows", 0)
    return f" a table of {rows} rows for pairs of neighbouring tokens;" if rows else ""


def _heads(manifest: dict[str, Any], training: dict[str, Any], forests: str) -> str:
    phrases = f"{training['triggers']} trigger phrase patterns"
    if len(manifest["features"]) == 1:
        return (
            f"- Heads: random forests ({forests}) on the mean-pooled, normalised embedding, and "
            f"{phrases}, combined by a calibrated logistic model."
        )
    sizes = {item["name"]: item["size"] for item in manifest["features"]}
    return (
        f"- Heads: random forests ({forests}) on logits of the encoder's {sizes['linear']} linear "
        "heads, the evidence of the strongest passage, hashed n-gram scores, rule scores by family "
        f"from {phrases}, and surface statistics; {training['own_texts']} training texts of our "
        "own. Forest, linear head, strongest passage, n-grams and rules are stacked by a logistic "
        "model fitted on training texts that the encoder had not seen, scaled and corrected on "
        "dev. Encoded parts of a text are decoded and scored as texts of their own; a text that is "
        "encoded as a whole is scored by what it says alone."
    )


def write_card(
    *,
    manifest: dict[str, Any],
    reports: dict[str, dict[str, Any]],
    training: dict[str, Any],
    licences: Sequence[tuple[str, int, int]],
) -> str:
    """The card as Markdown. `reports`: split name -> report, the last one is shown in detail."""
    encoder, heads = manifest["encoder"], manifest["heads"]
    detail_name, detail = list(reports.items())[-1]
    targets = [
        "| figure | limit | measured | met |",
        "|---|---|---|---|",
        *(
            f"| {name} | {item['limit']} | {_number(item['value'])} | "
            f"{'yes' if item['met'] else 'no'} |"
            for name, item in detail["meets_targets"].items()
        ),
    ]
    forests = ", ".join(f"{name} {head['trees']} trees" for name, head in heads.items())
    families = ", ".join(manifest["labels"]["families"])
    missed = [name for name, item in detail["meets_targets"].items() if not item["met"]]
    parts = [
        f"# {manifest['id']}",
        "",
        "Detects texts that attack an application built on a language model: injections, "
        "jailbreaks, extraction and exfiltration attempts, obfuscated attacks, and plain requests "
        "for harmful content.",
        "",
        f"- Encoder: {encoder['base']}, {encoder['layers']} layers, {encoder['precision']}, "
        f"{_tuning(training)};{_pairs(encoder)} windows of "
        f"{encoder['max_tokens']} tokens, {encoder['overlap_tokens']} of them shared with the "
        "next.",
        _heads(manifest, training, forests),
        f"- Families: {families}; {len(manifest['labels']['subfamilies'])} subfamilies.",
        f"- Made {manifest['created']} with raxe-fast {manifest['package_version']}.",
        "",
        "## Intended use",
        "",
        "One signal among several in front of or behind a language model: to block, to warn, to "
        "route to review, to label traffic. Not a guarantee: an attacker who tries long enough "
        "gets past any detector. Not for judging people. The score is a probability *for the mix "
        "of texts it was calibrated on* (about one attack in four); real traffic holds far fewer.",
        "",
        "## Figures",
        "",
        "Policy balanced, its block threshold. Intervals are 95 %. Thresholds and calibration were "
        "chosen on dev; test was used for this report alone.",
        "",
        *_figures(reports),
        "",
        f"Limits of the reference, computed from the counts of {detail_name}:",
        "",
        *targets,
        "",
        (
            f"**Not met: {', '.join(missed)}.**" + ("" if training["holdout"] else _FROZEN)
            if missed
            else "All are met."
        ),
        "",
        f"### By family ({detail_name})",
        "",
        *_groups(detail, "by_family"),
        "",
        f"### By length in tokens ({detail_name})",
        "",
        *_groups(detail, "by_length"),
        "",
        f"### Where it fails ({detail_name})",
        "",
        "Worst groups with at least 20 texts of the kind.",
        "",
        *_worst(detail, "by_subfamily", "fnr", 20),
        "",
        *_worst(detail, "by_source", "fnr", 20),
        "",
        *_worst(detail, "by_source", "fpr", 20),
        "",
        *_worst(detail, "by_language", "fpr", 20),
        "",
        *_worst(detail, "by_language", "fnr", 20),
        "",
        f"## Presets (score at or above; rates on {detail_name})",
        "",
        *_presets(detail, manifest["thresholds"]),
        "",
        "balanced: highest F1 on dev at a false-positive rate of at most 0.8 %, one standard error "
        "included, warning at 3 %. strict: at most 3 % of dev attacks missed, warning at 1.5 %. "
        "quiet: at most 0.2 % false positives on dev, warning at 1 %.",
        "",
        "## Training",
        "",
        f"{training['texts']} texts ({training['attacks']} attacks), {training['windows']} windows "
        f"(at most {training['window_cap']} per text). Windows of attack texts labelled by "
        f'"{training["labelling"]}". Embeddings were computed by the shipped '
        f"{encoder['precision']} encoder, one window at a time, as at run time. "
        "Seeds are fixed: the same inputs give the same heads.",
        "",
        f"Same verdicts in every implementation of the forests: on {training['parity_embeddings']} "
        f"rows of dev, {training['parity_flips']} verdict flips, largest difference "
        f"of a probability {training['parity_difference']:.2g}.",
        "",
        "## Data and licences",
        "",
        "Texts by licence in the training split; none of them is in this model.",
        "",
        "| licence | attacks | harmless |",
        "|---|---|---|",
        *(f"| {name} | {attack} | {benign} |" for name, attack, benign in licences),
        "",
        "## Limits",
        "",
        "- Labels of many texts were assigned by rules; subfamilies most of all.",
        "- Mostly English. Other languages are thinly covered; see the table above.",
        "- Texts from sources unlike these do worse; test holds the same sources as train.",
        "- An embedding is a mean over up to "
        f"{encoder['max_tokens']} tokens: a short instruction inside a long document is diluted"
        + (
            ", which the evidence of the strongest passage makes up for in part."
            if len(manifest["features"]) > 1
            else "."
        ),
        "- Token embeddings of ONNX Runtime's INT8 differ slightly between CPUs with and without "
        "VNNI; those of the native encoder are the same to the bit on every CPU.",
        "",
    ]
    return "\n".join(parts)
