"""What a robustness measurement is asked for and gives: options, tables, and how they print."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "PLAIN",
    "EncodingRow",
    "LongDocuments",
    "ObfuscationTable",
    "PaddingRow",
    "PaddingTable",
    "PositionRow",
    "Robustness",
    "RobustnessOptions",
    "print_robustness",
]

PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class RobustnessOptions:
    """What is measured, and on how much.

    ``texts`` attacks and as many harmless texts of at most ``text_chars`` characters are encoded.
    ``documents`` documents of about ``document_tokens`` tokens each get ``payloads`` payloads of
    ``payload_tokens`` tokens, one at a time, at ``positions`` positions from start to end.
    ``padding_chars``: characters of a document that are put beside the texts; 200, 600 and 1,600
    are about 50, 150 and 400 tokens of English. Raises ValueError for a count below 1
    (``positions``: 2), and for no padding.
    """

    texts: int = 150
    text_chars: int = 250
    excluded_families: frozenset[str] = frozenset({"encoding_obfuscation", "indirect_injection"})
    excluded_benign: frozenset[str] = frozenset({"encoded_benign"})
    documents: int = 40
    document_tokens: int = 3000
    positions: int = 10
    payloads: int = 1
    payload_tokens: tuple[int, int] = (20, 60)
    payload_families: frozenset[str] = frozenset(
        {"prompt_injection", "system_prompt_extraction", "data_exfiltration"}
    )
    document_subfamilies: frozenset[str] = frozenset(
        {"rag_passage", "documentation", "business_document", "web_page"}
    )
    padding_chars: tuple[int, ...] = (200, 600, 1600)
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"texts": 1, "text_chars": 1, "documents": 1, "document_tokens": 1,
                 "positions": 2, "payloads": 1}  # fmt: skip
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ValueError(f"{name} must be at least {low}, not {getattr(self, name)!r}")
        if not self.padding_chars or min(self.padding_chars) < 1:
            raise ValueError("padding_chars must be one or more positive numbers")


@dataclass(frozen=True, slots=True)
class EncodingRow:
    """One encoding, with or without a carrier sentence; ``augmented`` if the augmentation of
    training writes it too.

    ``unchanged`` texts came out of the encoding as they were (another script, say) and are not
    counted. ``recall``, ``plain_recall`` (the same attacks in plain writing without a carrier) and
    ``fpr`` are rates as of :func:`~raxe_fast.training.metrics.rate`; ``ratio`` is the first over
    the second, with a paired interval; its value is None if no plain attack was found.
    """

    encoding: str
    carrier: bool
    augmented: bool
    unchanged: int
    recall: dict[str, Any]
    plain_recall: dict[str, Any]
    ratio: dict[str, Any]
    fpr: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ObfuscationTable:
    """``attack`` and ``benign`` texts in every encoding; ``status`` counts the scans by status."""

    attack: int
    benign: int
    status: dict[str, int]
    rows: tuple[EncodingRow, ...]


@dataclass(frozen=True, slots=True)
class PositionRow:
    """Payloads at one position: ``position`` is the share of the document before it, asked for;
    ``actual`` the mean of what sentence borders allowed. ``located`` is the share of the detected
    documents whose worst window holds some of the payload."""

    position: float
    actual: float | None
    recall: dict[str, Any]
    located: dict[str, Any]


@dataclass(frozen=True, slots=True)
class LongDocuments:
    """Payloads in long harmless documents.

    ``recall`` is over all positions, its interval one over documents, not over scans; ``gained`` is
    the same over the documents that are not flagged without a payload; ``short_recall`` is that of
    the payloads alone, ``fpr`` that of the documents without one. ``tokens`` has the mean, least
    and most tokens read of a clean document.
    """

    documents: int
    payloads: int
    tokens: dict[str, float]
    status: dict[str, int]
    recall: dict[str, Any]
    gained: dict[str, Any]
    short_recall: dict[str, Any]
    fpr: dict[str, Any]
    rows: tuple[PositionRow, ...]


@dataclass(frozen=True, slots=True)
class PaddingRow:
    """Texts with about ``chars`` characters of a harmless document ``side`` (before, after) them;
    ``ratio`` is recall over that of the same attacks alone."""

    side: str
    chars: int
    recall: dict[str, Any]
    ratio: dict[str, Any]
    fpr: dict[str, Any]


@dataclass(frozen=True, slots=True)
class PaddingTable:
    """``attack`` and ``benign`` texts beside unrelated text; ``recall`` and ``fpr`` are those of
    the texts alone. No rows where there is no document that is long enough."""

    attack: int
    benign: int
    recall: dict[str, Any]
    fpr: dict[str, Any]
    status: dict[str, int]
    rows: tuple[PaddingRow, ...]


@dataclass(frozen=True, slots=True)
class Robustness:
    """All tables, and the options they were made with."""

    options: RobustnessOptions
    obfuscation: ObfuscationTable
    long_documents: LongDocuments
    padding: PaddingTable

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe: sets become sorted lists, tuples lists."""
        out: dict[str, Any] = _plain(asdict(self))
        return out


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _short(item: dict[str, Any], scale: float = 100, digits: int = 0) -> str:
    """Value and interval, e.g. "33 (14-61)"."""
    if item["value"] is None:
        return "-"
    text = f"{scale * item['value']:.{digits}f}"
    if item["interval"] is None:
        return text
    low, high = item["interval"]
    return f"{text} ({scale * low:.{digits}f}-{scale * high:.{digits}f})"


def print_robustness(robustness: dict[str, Any], console: Console) -> None:
    """The tables of :meth:`Robustness.to_dict`."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    found = robustness["obfuscation"]
    table = Table(
        "encoding", "carrier", "recall, %", "of plain recall", "FPR, %", box=SIMPLE_HEAD,
        title=f"obfuscation, {found['attack']} attacks and {found['benign']} harmless texts "
        "(* written by augmentation too)",
    )  # fmt: skip
    for row in found["rows"]:
        table.add_row(
            row["encoding"] + (" *" if row["augmented"] else ""),
            "yes" if row["carrier"] else "",
            _short(row["recall"]),
            _short(row["ratio"], 1, 2),
            _short(row["fpr"]),
        )
    console.print(table)

    found = robustness["long_documents"]
    table = Table(
        "payload at", "recall, %", "count", "located, %", box=SIMPLE_HEAD,
        title=f"payloads in {found['documents']} documents of about "
        f"{found['tokens']['mean']:,.0f} tokens",
    )  # fmt: skip
    for row in found["rows"]:
        recall = row["recall"]
        table.add_row(
            f"{100 * row['position']:.0f} %",
            _short(recall, digits=1),
            f"{recall['count']} of {recall['total']}",
            _short(row["located"]),
        )
    for title, name in (
        ("all positions", "recall"),
        ("in documents not flagged alone", "gained"),
        ("payloads alone", "short_recall"),
        ("documents alone (FPR)", "fpr"),
    ):
        item = found[name]
        count = f"{item['count']} of {item['total']}"
        table.add_row(title, _short(item, digits=1), count, "")
    console.print(table)

    found = robustness["padding"]
    table = Table(
        "unrelated text", "recall, %", "of recall alone", "FPR, %", box=SIMPLE_HEAD,
        title=f"padding, {found['attack']} attacks and {found['benign']} harmless texts",
    )  # fmt: skip
    table.add_row("none", _short(found["recall"]), "", _short(found["fpr"]))
    for row in found["rows"]:
        table.add_row(
            f"{row['chars']:,} characters {row['side']}",
            _short(row["recall"]),
            _short(row["ratio"], 1, 2),
            _short(row["fpr"]),
        )
    console.print(table)
