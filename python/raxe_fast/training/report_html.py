"""One HTML page of an evaluation report: no script, no other file, light and dark, fit for phones.

The page is made of the report alone (see :func:`~raxe_fast.training.report.build_report`), which
holds no text of the corpus. Group names come from the corpus and are escaped.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any

from raxe_fast.training.report import meets_targets
from raxe_fast.training.report_plots import (
    encodings_plot,
    histogram_plot,
    positions_plot,
    precision_recall_plot,
    reliability_plot,
    roc_plot,
)

__all__ = ["render_report"]

_WORST, _WORST_MINIMUM = 12, 20
_GROUPS = {
    "by_family": "Family",
    "by_length": "Length in tokens",
    "by_language": "Language",
    "by_subfamily": "Subfamily",
    "by_source": "Source",
}
_TITLES = {
    "f1": "F1",
    "auc": "ROC AUC",
    "fpr": "False-positive rate",
    "fnr": "False-negative rate",
    "precision": "Precision",
    "recall_at_fpr_0.01": "Recall at 1 % FPR",
    "recall_at_fpr_0.001": "Recall at 0.1 % FPR",
    "ece": "Calibration error (ECE)",
    "log_loss": "Log-loss",
    "family_macro_f1": "Family macro-F1",
    "subfamily_macro_f1": "Subfamily macro-F1",
}
_PERCENT = frozenset({"fpr", "fnr", "precision", "recall_at_fpr_0.01", "recall_at_fpr_0.001"})

_STYLE = """
:root{color-scheme:light dark;--bg:#fff;--card:#f5f6f8;--ink:#1b1f24;--soft:#5b6470;--rule:#d9dde3;
--s1:#0b62c4;--s2:#c2410c;--good:#157f3b;--bad:#b42318;--heat:11 98 196}
@media(prefers-color-scheme:dark){:root{--bg:#14171b;--card:#1e2329;--ink:#e7eaee;--soft:#9aa4b0;
--rule:#353c45;--s1:#6cb0ff;--s2:#ff9a5c;--good:#5fd38a;--bad:#ff8a7d;--heat:108 176 255}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1rem;max-width:70rem;background:var(--bg);color:var(--ink);
font:16px/1.5 system-ui,sans-serif}
h1{font-size:1.5rem;line-height:1.2;margin:.5rem 0}h2{font-size:1.2rem;margin:2rem 0 .5rem}
p,figcaption,.soft{color:var(--soft)}p{margin:.3rem 0}
.cards,.plots{display:grid;gap:.75rem;grid-template-columns:repeat(auto-fill,minmax(10rem,1fr))}
.plots{grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr))}
.card,figure{background:var(--card);border-radius:.5rem;padding:.6rem .8rem;margin:0}
.card b{display:block;font-size:1.35rem}.card small,td small{color:var(--soft)}
figcaption{font-size:.85rem}svg{display:block;width:100%;max-width:36rem;height:auto}
.wrap{overflow-x:auto;margin:.6rem 0}table{border-collapse:collapse;font-size:.9rem;min-width:100%}
th,td{padding:.25rem .6rem;border-bottom:1px solid var(--rule);text-align:right;white-space:nowrap}
th:first-child,td:first-child{text-align:left}
thead th{color:var(--soft);font-weight:600;vertical-align:bottom}
.yes{color:var(--good);font-weight:600}.no{color:var(--bad);font-weight:600}
details{margin:.5rem 0;border-top:1px solid var(--rule)}summary{cursor:pointer;padding:.5rem 0}
.heat td{text-align:center;background:rgb(var(--heat)/var(--a,0))}
.heat td:first-child{text-align:left}
.heat thead th{writing-mode:vertical-rl;text-align:left;transform:rotate(180deg)}
.heat thead th:first-child{writing-mode:initial;transform:none}
.axis{fill:none;stroke:var(--soft)}.grid{fill:none;stroke:var(--rule);stroke-width:.6}
.label{fill:var(--soft);font:11px system-ui,sans-serif}
.line{fill:none;stroke-width:1.8}.line.s1{stroke:var(--s1)}.line.s2{stroke:var(--s2)}
.line.dash{stroke:var(--soft);stroke-dasharray:4 4}.dot.s1,.bar.s1{fill:var(--s1)}
.dot.s2,.bar.s2{fill:var(--s2)}.bar{opacity:.6}.key{font-weight:700}
@media(max-width:40rem){td small{display:block}th,td{padding:.25rem .4rem}}
.key.s1{color:var(--s1)}.key.s2{color:var(--s2)}
""".replace("\n", "")

_e = html.escape


def _percent(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{100 * value:.{digits}f} %"


def _interval(item: dict[str, Any], percent: bool = True, digits: int | None = None) -> str:
    interval = item.get("interval")
    if interval is None:
        return ""
    scale, digits = (100, digits or 2) if percent else (1, digits or 4)
    unit = " %" if percent else ""
    return f"{scale * interval[0]:.{digits}f} to {scale * interval[1]:.{digits}f}{unit}"


def _rate(item: dict[str, Any]) -> str:
    """A cell: the rate, and its interval in small print."""
    if item["value"] is None:
        return "-"
    return f"{_percent(item['value'])} <small>{_interval(item)}</small>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """Cells are HTML; the first one of a row is its name."""
    top = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "".join(
        "<tr>" + "".join(cell if cell.startswith("<td") else f"<td>{cell}</td>" for cell in row)
        + "</tr>"
        for row in rows
    )  # fmt: skip
    return (
        f'<div class="wrap"><table class="{kind}"><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _figure(plot: str, caption: str) -> str:
    return f"<figure>{plot}<figcaption>{caption}</figcaption></figure>"


def _details(title: str, inner: str, *, is_open: bool = False) -> str:
    return f"<details{' open' if is_open else ''}><summary>{title}</summary>{inner}</details>"


def _headline(report: dict[str, Any]) -> str:
    figures = dict(report["overall"])
    for head in ("family", "subfamily"):
        view = report[head]["all_attacks"]
        figures[f"{head}_macro_f1"] = {
            "value": view["macro_f1"],
            "interval": view["interval"],
            "total": view["accuracy"]["total"],
        }
    cards = []
    for name, title in _TITLES.items():
        item = figures.get(name)
        if item is None or item["value"] is None:
            continue
        percent = name in _PERCENT
        value = _percent(item["value"]) if percent else f"{item['value']:.4f}"
        count = f"{item['count']:,} of {item['total']:,}" if percent else f"{item['total']:,} texts"
        span = _interval(item, percent)
        cards.append(
            f'<div class="card">{title}<b>{value}</b><small>{span}{"; " if span else ""}'
            f"{count}</small></div>"
        )
    return (
        f'<div class="cards">{"".join(cards)}</div><p>Small print: 95 % intervals and counts.</p>'
    )


def _limits(report: dict[str, Any]) -> str:
    marks = {
        True: '<td class="yes">met</td>',
        False: '<td class="no">not met</td>',
        None: "<td>not measured</td>",
    }
    rows = [
        (
            _TITLES[name],
            "-" if item["value"] is None else f"{item['value']:.4f}",
            _e(item["limit"]),
            marks[item["met"]],
        )
        for name, item in meets_targets(report).items()
    ]
    counts = report["overall"]["confusion"]
    return _table(("figure", "value", "limit", ""), rows) + (
        f"<p>Computed from {counts['tp']:,} attacks found, {counts['fn']:,} missed, "
        f"{counts['fp']:,} false alarms and {counts['tn']:,} harmless texts let through.</p>"
    )


def _plots(report: dict[str, Any]) -> str:
    curves = report.get("curves")
    if curves is None:
        return ""
    points = curves["operating_points"]
    figures = []
    if points["attack"] and points["benign"]:
        counts = report["overall"]["confusion"]
        figures += [
            _figure(
                roc_plot(points, counts),
                f"Logarithmic. One false alarm is {_percent(1 / points['benign'], 3)}; rates below "
                "0.01 % are drawn at the left edge. The dot is the policy.",
            ),
            _figure(precision_recall_plot(points, counts), "The dot is the policy."),
        ]
    figures += [
        _figure(
            reliability_plot(curves["reliability"]),
            "Share of attacks among texts of similar score, with 95 % intervals. A calibrated "
            "score lies on the broken line.",
        ),
        _figure(
            histogram_plot(curves["histogram"], report["thresholds"]),
            '<span class="key s1">Attacks</span> and <span class="key s2">harmless texts</span> by '
            "score, logarithmic. Broken lines: thresholds to warn and to block.",
        ),
    ]
    return f'<h2>Curves</h2><div class="plots">{"".join(figures)}</div>'


def _worst(report: dict[str, Any], side: str) -> str:
    """The groups that are surely bad: by the lower end of the interval, so that a small group of
    which nothing much is known does not come first."""
    found = [
        (item["interval"][0], _GROUPS[key].lower(), name, item)
        for key in _GROUPS
        for name, row in report[key].items()
        if (item := row[side])["total"] >= _WORST_MINIMUM and item["count"]
    ]
    found.sort(key=lambda entry: (-entry[0], entry[1], entry[2]))
    title = "Missed attacks" if side == "fnr" else "False alarms"
    rows = [
        (f"{_e(name)} <small>{_e(kind)}</small>", _rate(item), f"{item['count']:,}",
         f"{item['total']:,}")
        for _, kind, name, item in found[:_WORST]
    ]  # fmt: skip
    return _table((title, "rate", "count", "of"), rows) if rows else f"<p>{title}: none.</p>"


def _groups(rows: dict[str, Any]) -> str:
    return _table(
        ("", "texts", "attacks", "recall", "harmless", "FPR"),
        [
            (_e(name), f"{row['texts']:,}", f"{row['attack']:,}", _rate(row["recall"]),
             f"{row['benign']:,}", _rate(row["fpr"]))
            for name, row in rows.items()
        ],
    )  # fmt: skip


def _confusion(report: dict[str, Any]) -> str:
    confusion = report["family"]["confusion"]
    classes, matrix = confusion["classes"], confusion["matrix"]
    rows = []
    for name, row in zip(classes, matrix, strict=True):
        total = sum(row)
        if total:
            cells = (f'<td style="--a:{0.7 * n / total:.3f}">{n or ""}</td>' for n in row)
            rows.append((_e(name), *cells))
    return "<p>Rows: the label; columns: what the family head said of every attack.</p>" + _table(
        ("", *map(_e, classes)), rows, "heat"
    )


def _ratio(item: dict[str, Any]) -> str:
    if item["value"] is None:
        return "-"
    return f"{item['value']:.2f} <small>{_interval(item, False, 2)}</small>"


def _obfuscation(found: dict[str, Any]) -> str:
    rows = []
    for row in found["rows"]:
        rows.append(
            (
                _e(row["encoding"])
                + (" *" if row["augmented"] else "")
                + (" <small>in a carrier</small>" if row["carrier"] else ""),
                _rate(row["recall"]),
                _ratio(row["ratio"]),
                _rate(row["fpr"]),
                f"{row['recall']['total']:,} / {row['fpr']['total']:,}",
            )
        )
    return (
        "<h3>Disguised texts</h3>"
        f"<p>{found['attack']:,} short attacks and {found['benign']:,} harmless texts, each in "
        "every encoding, alone and inside a carrier sentence (the same ones for both). * the "
        "augmentation of training writes it too.</p>"
        + _figure(
            encodings_plot(found["rows"]),
            'Recall, <span class="key s1">alone</span> and <span class="key s2">in a carrier '
            "sentence</span>.",
        )
        + _table(("", "recall", "of plain recall", "FPR", "attacks / harmless"), rows)
    )


def _long_documents(found: dict[str, Any]) -> str:
    summary = [
        (title, _rate(found[name]), f"{found[name]['count']:,} of {found[name]['total']:,}")
        for title, name in (
            ("recall, all positions", "recall"),
            ("recall in documents not flagged without a payload", "gained"),
            ("recall of the payloads alone", "short_recall"),
            ("FPR of the documents without a payload", "fpr"),
        )
    ]
    rows = [
        (
            _percent(row["position"], 0),
            _percent(row["actual"], 0),
            _rate(row["recall"]),
            _rate(row["located"]),
        )
        for row in found["rows"]
    ]
    return (
        "<h3>Payloads in long documents</h3>"
        f"<p>{found['payloads']:,} payloads in {found['documents']:,} harmless documents of "
        f"{found['tokens']['mean']:,.0f} tokens on average, at every position.</p>"
        + _figure(
            positions_plot(found),
            'Recall by <span class="key s1">position of the payload</span>; broken: the payloads '
            "alone.",
        )
        + _table(("", "rate", "count"), summary)
        + _table(("payload at", "at the border at", "recall", "worst window holds it"), rows)
    )


def _padding(found: dict[str, Any]) -> str:
    rows = [("none", _rate(found["recall"]), "", _rate(found["fpr"]))]
    for row in found["rows"]:
        name = f"{row['chars']:,} characters {_e(row['side'])}"
        rows.append((name, _rate(row["recall"]), _ratio(row["ratio"]), _rate(row["fpr"])))
    return (
        "<h3>Texts beside unrelated text</h3>"
        f"<p>{found['attack']:,} short attacks and {found['benign']:,} harmless texts, with a "
        "piece of a harmless document before or after them.</p>"
        + _table(("unrelated text", "recall", "of recall alone", "FPR"), rows)
    )


def _facts(report: dict[str, Any]) -> str:
    hardware = {k: v for k, v in report["hardware"].items() if not isinstance(v, dict)}
    packages = report["hardware"].get("packages") or {}
    facts = {
        "corpus": report["corpus"],
        "policy": report["policy"],
        **{f"{name} at": f"{value:.4f}" for name, value in report["thresholds"].items()},
        "made": report["timestamp"],
        "unreadable lines": len(report["bad_lines"]),
        "failed scans": report["failed_scans"],
        **{f"status {name}": count for name, count in report["status"].items()},
        **hardware,
        **packages,
    }
    return _table(("", ""), [(_e(str(k)), _e(str(v))) for k, v in facts.items()])


def render_report(report: dict[str, Any]) -> str:
    """The page as a string, to be written as UTF-8. Plots are left out of a report without curves,
    the robustness section of one without it."""
    overall = report["overall"]
    title = f"{_e(report['model_id'])} on {_e(report['corpus'])}"
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        f"<title>{title}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{title}</h1>",
        f"<p>Policy {_e(report['policy'])}; {overall['texts']:,} texts, {overall['attack']:,} "
        f"attacks and {overall['benign']:,} harmless.</p>",
        _headline(report),
        "<h2>Limits</h2>",
        _limits(report),
        _plots(report),
        "<h2>Where it fails</h2>",
        f"<p>Groups of at least {_WORST_MINIMUM} texts of the kind, by the lower end of the "
        "interval.</p>",
        _worst(report, "fnr"),
        _worst(report, "fpr"),
        "<h2>Groups</h2>",
        *(
            _details(f"{name} ({len(report[key])})", _groups(report[key]), is_open=i == 0)
            for i, (key, name) in enumerate(_GROUPS.items())
        ),
        _details("Confusion of families", _confusion(report)),
    ]
    robustness = report.get("robustness")
    if robustness is not None:
        parts += [
            "<h2>Robustness</h2>",
            _obfuscation(robustness["obfuscation"]),
            _long_documents(robustness["long_documents"]),
            _padding(robustness["padding"]),
        ]
    parts += ["<h2>This evaluation</h2>", _facts(report), "</body></html>"]
    return "\n".join(part for part in parts if part) + "\n"
