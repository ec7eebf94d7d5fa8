"""Seeded augmentation: other surfaces, the same meaning.

Every attack that is dressed up has a harmless text in the same dress, under the same source name,
so that the dress says nothing about the label:

- ``augmented:carrier``: direct attacks inside harmless documents; the clean documents.
- ``augmented:task``: tasks for the model inside harmless documents; the documents with a note to
  people in such a place, and after a user's own request.
- ``augmented:<encoding>``: attacks and harmless texts in one of ten encodings.
- ``augmented:quoted``: attacks quoted in harmless talk; the same talk followed by a live attack.
- ``augmented:triggers``: harmless texts full of the words that attacks use.
- ``augmented:padded``: attacks beside unrelated harmless texts; harmless ones in their place.
- ``augmented:reworded``: attacks and harmless texts in other words, frames and order, as one who
  searches for a way past a detector edits them (``evasion.rules``, the half for fitting).

A row made of two records takes both from one fold and the group of the one that fills most of it;
a split into the same folds, before or after augmentation, never has a text on both sides.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from raxe_fast.training.augment_carriers import (
    PLACES,
    Insertion,
    Kind,
    carrier_kind,
    insert_payload,
)
from raxe_fast.training.augment_encodings import ENCODINGS, OPAQUE, SUBFAMILY, encode
from raxe_fast.training.augment_padding import SIDES, pad, piece_of
from raxe_fast.training.augment_tasks import (
    NOTE_WRAPPERS,
    NOTES,
    REQUESTS,
    TASK_BARE,
    TASK_HTML,
    TASK_SLOTS,
    TASK_TEXT,
    TASKS,
)
from raxe_fast.training.augment_templates import (
    DECODE_PROMPTS,
    LIVE_JOINTS,
    QUOTES,
    SLOTS,
    TRIGGER_TEXTS,
)
from raxe_fast.training.corpus import Record
from raxe_fast.training.evasion import reword, rules
from raxe_fast.training.folds import fold_of, group_key

__all__ = ["SOURCE_PREFIX", "AugmentOptions", "Augmented", "augment"]

SOURCE_PREFIX = "augmented:"
BENIGN = "benign"
_KIND_OF_SUBFAMILY: dict[str, Kind] = {
    "email": "email",
    "web_page": "page",
    "tool_json": "json",
    "code": "code",
    "table": "table",
}
_INDIRECT: dict[Kind, str] = {
    "email": "email_injection",
    "page": "web_injection",
    "json": "tool_output_injection",
    "table": "tool_output_injection",
    "code": "code_injection",
    "text": "document_injection",
}
# Harmless texts that are documents someone may ask a model to read.
_DOCUMENTS = frozenset(
    {
        "business_document",
        "code",
        "dialogue",
        "documentation",
        "email",
        "instruction_with_context",
        "long_instruction",
        "rag_passage",
        "table",
        "tool_json",
        "web_page",
    }
)


# Harmless texts that ask for something and need no document.
_REQUESTS = frozenset({"assistant_task", "chat_instruction", "chat_question", "code_request"})


@dataclass(frozen=True, slots=True)
class AugmentOptions:
    """How much to make, each as a share of the number of records given.

    ``encoded`` counts pairs of an attack and a harmless text; encodings of which nothing shows
    through get ``opaque`` times the share of the others. ``folds`` is what a later split
    uses (sha256 of the group). Payloads have ``payload_chars`` characters, carriers
    ``carrier_chars``, and encoded texts at most ``encoded_chars``. ``tasks`` counts injected tasks;
    for each two there is a document with a note, and one that a user asks about. ``padded`` counts
    pairs too; their texts have at most ``padded_chars`` characters, what stands on one side of them
    ``padding_chars``. ``reworded`` counts pairs; their texts have at most ``padded_chars``
    characters and up to ``edits`` edits.
    """

    carriers: float = 0.09
    tasks: float = 0.035
    encoded: float = 0.04
    opaque: float = 0.5
    quoted: float = 0.02
    live: float = 0.01
    triggers: float = 0.015
    padded: float = 0.05
    reworded: float = 0.04
    edits: int = 5
    payload_families: frozenset[str] = frozenset(
        {"prompt_injection", "system_prompt_extraction", "data_exfiltration"}
    )
    payload_chars: tuple[int, int] = (15, 350)
    carrier_chars: tuple[int, int] = (150, 2400)
    encoded_chars: int = 300
    padded_chars: int = 600
    padding_chars: tuple[int, int] = (60, 1600)
    folds: int = 5
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Augmented:
    """A new record, and where its payload stands: code points [begin, end), both 0 where there is
    none or all of the text is it."""

    record: Record
    begin: int = 0
    end: int = 0


class _Pool:
    """Records by fold and source; sources are drawn by the square root of their size, so that a
    large one does not lend its style to everything."""

    def __init__(self, records: Sequence[Record], folds: int) -> None:
        grouped: dict[int, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
        for record in records:
            grouped[fold_of(group_key(record), folds)][record.source].append(record)
        self._by_fold = {fold: list(sources.values()) for fold, sources in grouped.items()}
        self._size = {
            fold: sum(len(part) for part in parts) for fold, parts in self._by_fold.items()
        }
        self.folds = sorted(self._by_fold)

    def draw(self, rng: random.Random, fold: int) -> Record:
        parts = self._by_fold[fold]
        return rng.choice(rng.choices(parts, [len(part) ** 0.5 for part in parts])[0])

    def fold(self, rng: random.Random, among: Sequence[int]) -> int:
        return rng.choices(among, [self._size[fold] for fold in among])[0]


def augment(records: Sequence[Record], options: AugmentOptions | None = None) -> list[Augmented]:
    """New rows made from ``records`` (whose own are not repeated, clean carriers excepted).

    The same records in the same order and the same options give the same rows. Labels of a family
    the records do not have are not invented: an attack then keeps its own. What there is no
    material for is not made. Raises ValueError for fewer than 2 folds.
    """
    options = options or AugmentOptions()
    maker = _Maker(records, options)
    return [
        *maker.carriers(),
        *maker.tasks_in_documents(),
        *maker.encoded(),
        *maker.quoted(),
        *maker.triggers(),
        *maker.padded(),
        *maker.reworded(),
    ]


class _Maker:
    def __init__(self, records: Sequence[Record], options: AugmentOptions) -> None:
        self.options = options
        self.size = len(records)
        self.known = {(r.family, r.subfamily) for r in records}
        attacks = [r for r in records if r.label == 1]
        harmless = [r for r in records if r.label == 0]
        low, high = options.payload_chars
        short, long = options.carrier_chars
        self.payloads = _Pool(
            [
                r
                for r in attacks
                if r.family in options.payload_families and low <= len(r.text.strip()) <= high
            ],
            options.folds,
        )
        documents = [r for r in harmless if short <= len(r.text) <= long]
        named = [r for r in documents if r.subfamily in _DOCUMENTS]
        self.documents = _Pool(named or documents, options.folds)
        # What a document may ask for besides TASKS, and what users ask about documents.
        self.tasks = _Pool(
            [r for r in harmless if r.subfamily in _REQUESTS and 12 <= len(r.text) <= 140],
            options.folds,
        )
        limit = options.encoded_chars
        self.short_attacks = _Pool(
            [r for r in attacks if len(r.text) <= limit and r.family != "encoding_obfuscation"],
            options.folds,
        )
        self.short_harmless = _Pool(
            [r for r in harmless if len(r.text) <= limit and r.subfamily != "encoded_benign"],
            options.folds,
        )
        limit, least = options.padded_chars, options.padding_chars[0]
        self.padded_attacks = _Pool(
            [r for r in attacks if len(r.text) <= limit and r.family != "encoding_obfuscation"],
            options.folds,
        )
        self.padded_harmless = _Pool([r for r in harmless if len(r.text) <= limit], options.folds)
        self.paddings = _Pool([r for r in harmless if len(r.text) >= least], options.folds)

    def _rng(self, what: str) -> random.Random:
        # One stream per kind: a change of one share leaves the other kinds as they are.
        return random.Random(f"{self.options.seed}:{what}")

    def _count(self, share: float) -> int:
        return round(share * self.size)

    def _attack(self, record: Record, family: str, subfamily: str) -> Record:
        if (family, subfamily) in self.known:
            return replace(record, family=family, subfamily=subfamily)
        return record

    def _harmless(self, record: Record, subfamily: str) -> Record:
        if record.label == 1 or (BENIGN, subfamily) in self.known:
            return replace(record, label=0, family=BENIGN, subfamily=subfamily)
        return record

    def carriers(self) -> list[Augmented]:
        rng, made = self._rng("carrier"), []
        folds = sorted(set(self.payloads.folds) & set(self.documents.folds))
        for _ in range(self._count(self.options.carriers) if folds else 0):
            fold = self.documents.fold(rng, folds)
            document, attack = self.documents.draw(rng, fold), self.payloads.draw(rng, fold)
            kind, place = _kind(document), rng.choice(PLACES)
            found = insert_payload(document.text, attack.text.strip(), kind, place, rng)
            labelled = replace(attack, group=group_key(document), lang=document.lang)
            labelled = self._attack(labelled, "indirect_injection", _INDIRECT[kind])
            record = _new(labelled, found.text, "carrier", f"{attack.license}; {document.license}")
            made.append(Augmented(record, found.begin, found.end))
            made.append(Augmented(_new(document, document.text, "carrier")))
        return made

    def tasks_in_documents(self) -> list[Augmented]:
        rng, made = self._rng("task"), []
        folds = sorted(set(self.tasks.folds) & set(self.documents.folds))
        count = self._count(self.options.tasks) if folds else 0
        for number in range(count):
            fold = self.documents.fold(rng, folds)
            document = self.documents.draw(rng, fold)
            asker = self.tasks.draw(rng, fold)
            request = asker.text.strip()
            own = rng.random() < 0.6
            task = _fill(rng.choice(TASKS), rng, "") if own else request.rstrip(".!")
            license_ = document.license if own else f"{asker.license}; {document.license}"
            injected = self._injected(document, task, license_, rng)
            if injected.record.family == document.family:
                continue  # the records have no such attacks, and it has no family of its own
            made.append(injected)
            if number % 2:
                continue
            note = _fill(rng.choice(NOTES), rng, "")
            text = _put(document, rng.choice(NOTE_WRAPPERS), (), note, rng).text
            made.append(Augmented(_new(document, text, "task")))
            other = self.documents.draw(rng, fold)
            asked = _said(rng.choice(REQUESTS), a=request, d=other.text)
            record = self._harmless(other, "instruction_with_context")
            license_ = f"{asker.license}; {other.license}"
            made.append(Augmented(_new(record, asked, "task", license_)))
        return made

    def _injected(
        self, document: Record, task: str, license_: str, rng: random.Random
    ) -> Augmented:
        found = _put(document, rng.choice(TASK_TEXT), TASK_HTML, task, rng)
        record = replace(document, label=1, group=group_key(document))
        record = self._attack(record, "indirect_injection", _INDIRECT[_kind(document)])
        return Augmented(_new(record, found.text, "task", license_), found.begin, found.end)

    def encoded(self) -> list[Augmented]:
        made = []
        # What nothing of the text shows through teaches less.
        opaque = self.options.opaque
        weights = {kind: opaque if kind in OPAQUE else 1.0 for kind in ENCODINGS}
        for kind, weight in weights.items():
            rng = self._rng(kind)
            count = self._count(self.options.encoded * weight / sum(weights.values()))
            for pool in (self.short_attacks, self.short_harmless):
                for _ in range(count if pool.folds else 0):
                    record = pool.draw(rng, pool.fold(rng, pool.folds))
                    text = encode(kind, record.text, rng)
                    if kind in OPAQUE:
                        text = rng.choice(DECODE_PROMPTS).replace("{a}", text)
                    if record.label == 1:
                        record = self._attack(record, "encoding_obfuscation", SUBFAMILY[kind])
                    else:
                        record = self._harmless(record, "encoded_benign")
                    made.append(Augmented(_new(record, text, kind)))
        return made

    def quoted(self) -> list[Augmented]:
        rng, made, pool = self._rng("quoted"), [], self.payloads
        counts = (self._count(self.options.quoted), self._count(self.options.live))
        for live, count in enumerate(counts):
            for _ in range(count if pool.folds else 0):
                fold = pool.fold(rng, pool.folds)
                quoted = pool.draw(rng, fold)
                text = _fill(rng.choice(QUOTES), rng, quoted.text.strip())
                if not live:
                    harmless = self._harmless(quoted, "hard_negative_security")
                    made.append(Augmented(_new(harmless, text, "quoted")))
                    continue
                attack = pool.draw(rng, fold)
                piece = rng.choice(LIVE_JOINTS).replace("{a}", attack.text.strip())
                record = _new(attack, text + piece, "quoted", _licenses(quoted, attack))
                made.append(Augmented(record, len(text), len(record.text)))
        return made

    def padded(self) -> list[Augmented]:
        rng, made = self._rng("padded"), []
        pools = (self.padded_attacks, self.padded_harmless)
        folds = sorted(set(self.paddings.folds).intersection(*(pool.folds for pool in pools)))
        for _ in range(self._count(self.options.padded) if folds else 0):
            fold, side = self.paddings.fold(rng, folds), rng.choice(SIDES)
            around = (self.paddings.draw(rng, fold), self.paddings.draw(rng, fold))
            first, second = (piece_of(r.text, self.options.padding_chars, rng) for r in around)
            used = {"before": around[:1], "after": around[1:], "both": around}[side]
            for pool in pools:
                record = pool.draw(rng, fold)
                # In the midst of a document, a request is what tasks_in_documents calls an attack.
                if side == "both" and record.label == 0 and record.subfamily in _REQUESTS:
                    continue
                found = pad(record.text.strip(), (first, second), side, rng)
                longest = max((record, *used), key=lambda r: len(r.text))
                grouped = replace(record, group=group_key(longest))
                row = _new(grouped, found.text, "padded", _licenses(record, *used))
                place = (found.begin, found.end) if row.label == 1 else (0, 0)
                made.append(Augmented(row, *place))
        return made

    def reworded(self) -> list[Augmented]:
        rng, made = self._rng("reworded"), []
        edits = rules("fit")
        for _ in range(self._count(self.options.reworded)):
            for pool in (self.padded_attacks, self.padded_harmless):
                if not pool.folds:
                    continue
                record = pool.draw(rng, pool.fold(rng, pool.folds))
                text = reword(record.text.strip(), edits, rng.randint(1, self.options.edits), rng)
                made.append(Augmented(_new(record, text, "reworded")))
        return made

    def triggers(self) -> list[Augmented]:
        rng, made = self._rng("triggers"), []
        seen: set[str] = set()
        for number in range(self._count(self.options.triggers)):
            which = number % len(TRIGGER_TEXTS)
            text = _fill(TRIGGER_TEXTS[which], rng, "")
            if text in seen:
                continue
            seen.add(text)
            record = Record(
                text=text,
                label=0,
                family=BENIGN,
                subfamily="hard_negative_trigger",
                group=f"{SOURCE_PREFIX}triggers:{which}",
                license="Apache-2.0",
            )
            made.append(Augmented(_new(record, text, "triggers")))
        return made


def _licenses(*records: Record) -> str:
    """Each license once, in the order of the records."""
    return "; ".join(dict.fromkeys(record.license for record in records))


def _kind(document: Record) -> Kind:
    return _KIND_OF_SUBFAMILY.get(document.subfamily) or carrier_kind(document.text)


def _put(
    document: Record, wrapper: str, html: Sequence[str], said: str, rng: random.Random
) -> Insertion:
    """``said`` in ``wrapper``, or in one of ``html`` if the document is a page, at a place where
    such a document would hold a text."""
    kind = _kind(document)
    if kind == "page" and html and rng.random() < 0.6:
        wrapper = rng.choice(html)
    piece = _said(wrapper, a=said, A=said[:1].upper() + said[1:])
    # Without a word around it a task before or after the document is the user's own.
    bare = wrapper in TASK_TEXT[:TASK_BARE]
    place = "middle" if bare else rng.choice(PLACES)
    if bare and kind == "code" and "\n" not in document.text.strip():
        kind = "text"  # comments stand between lines, and one line has nothing between
    return insert_payload(document.text, piece, kind, place, rng, wrap=False)


def _said(template: str, **parts: str) -> str:
    # In one pass, so that nothing inside a part is taken for a slot.
    return re.sub(r"\{([aAd])\}", lambda slot: parts[slot[1]], template)


def _fill(template: str, rng: random.Random, payload: str) -> str:
    text = template.replace("{{", "{").replace("}}", "}").replace("{n}", str(rng.randint(2, 59)))
    for name, values in (*SLOTS.items(), *TASK_SLOTS.items()):
        while f"{{{name}}}" in text:
            text = text.replace(f"{{{name}}}", rng.choice(values), 1)
    # Last, so that nothing inside a payload is taken for a slot.
    return text.replace("{a}", payload)


def _new(record: Record, text: str, kind: str, license_: str | None = None) -> Record:
    source = SOURCE_PREFIX + kind
    digest = hashlib.sha256(f"{source}\n{text}".encode("utf-8", "surrogatepass")).hexdigest()
    return replace(
        record,
        text=text,
        source=source,
        id=digest[:16],
        group=group_key(record),
        license=record.license if license_ is None else license_,
    )
