"""What fine-tuning reads: token ids of every training text, class numbers, payload positions."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from raxe_fast.training.augment import Augmented
from raxe_fast.training.corpus import Record
from raxe_fast.training.metrics import Ints
from raxe_fast.training.train_data import Labels

if TYPE_CHECKING:
    from raxe_fast.training.finetune_sampler import Batch

__all__ = [
    "BENIGN",
    "Classes",
    "Tokens",
    "TrainingSet",
    "build_set",
    "payload_places",
    "payload_spans",
]

BENIGN = "benign"
_SURROGATES = re.compile("[\ud800-\udfff]")
_CHUNK = 2000
# Of a longer text no window beyond this is ever drawn; it bounds memory, not the texts.
_STORED_TOKENS = 4096
_LONG = 400


@dataclass(frozen=True, slots=True)
class Classes:
    """Outputs of the linear heads. Harmless texts have classes too (family ``benign``, one
    subfamily per kind of text): telling them apart is what keeps the embedding general."""

    families: tuple[str, ...]
    subfamilies: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, records: Sequence[Record]) -> Classes:
        """Raises CorpusError for an attack without family or subfamily, naming its line."""
        attacks = Labels.of(records)
        harmless = sorted({r.subfamily or "other" for r in records if r.label == 0})
        return cls(
            (BENIGN, *attacks.families),
            (*((BENIGN, name) for name in harmless), *attacks.subfamilies),
        )

    def numbers(self, records: Sequence[Record]) -> tuple[Ints, Ints]:
        """(N,) family and (N,) subfamily numbers; -1 for names that are no classes."""
        family = {name: i for i, name in enumerate(self.families)}
        pair = {name: i for i, name in enumerate(self.subfamilies)}
        names = [
            (r.family, r.subfamily) if r.label == 1 else (BENIGN, r.subfamily or "other")
            for r in records
        ]
        return (
            np.array([family.get(name[0], -1) for name in names], dtype=np.int64),
            np.array([pair.get(name, -1) for name in names], dtype=np.int64),
        )


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token ids of one text without special tokens, and the range of tokens its payload covers
    (begin == end where it is unknown)."""

    ids: NDArray[np.int32]
    begin: int = 0
    end: int = 0

    def crop(self, room: int, label: int, chance: float, where: float) -> int:
        """First token of a window of at most ``room`` tokens; ``chance`` and ``where`` are uniform
        in [0, 1).

        The window of an attack whose payload is known holds the payload, or its beginning: a
        document cut off before the payload is no attack. Other attacks are read from their start,
        and harmless texts from anywhere, 4 times in 10 from their start.
        """
        free = len(self.ids) - room
        if free <= 0:
            return 0
        if self.end > self.begin:
            low, high = max(0, self.end - room), min(self.begin, free)
            return min(self.begin, free) if low > high else low + int(where * (high - low + 1))
        return int(where * (free + 1)) if label == 0 and chance < 0.6 else 0


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """N texts in order: records, their tokens, (N,) label, family and subfamily numbers."""

    records: list[Record]
    tokens: list[Tokens]
    label: Ints
    family: Ints
    subfamily: Ints

    def __len__(self) -> int:
        return len(self.records)


def payload_spans(records: Sequence[Record]) -> dict[int, tuple[int, int]]:
    """Where the payload of a long attack stands, by index of its record: code points [begin, end).

    Found where a harmless text of the same group is the same document without the payload: what
    their common beginning and end leave over, if these two are at least half of the attack.
    """
    clean: dict[str, list[str]] = defaultdict(list)
    for record in records:
        if record.label == 0 and record.group:
            clean[record.group].append(record.text)
    spans = {}
    for index, record in enumerate(records):
        if record.label == 0 or len(record.text) < _LONG or not record.group:
            continue
        text, best = record.text, 0
        for other in clean.get(record.group, ()):
            head = _common(text, other)
            # The two must not share a character: they stand side by side in the shorter text.
            tail = min(_common(text[::-1], other[::-1]), min(len(text), len(other)) - head)
            if head + tail > best and 2 * (head + tail) >= len(text) > head + tail:
                best = head + tail
                spans[index] = (head, len(text) - tail)
    return spans


def payload_places(data: TrainingSet, batch: Batch, width: int) -> NDArray[np.int8]:
    """(B, width) for the windows of a batch: 1 on tokens of a payload whose place is known, 0 on
    the other tokens of its text, -1 where nothing is known. Column 0 is the special first token."""
    places = np.full((len(batch.rows), width), -1, np.int8)
    for i, (row, start) in enumerate(zip(batch.rows, batch.starts, strict=True)):
        tokens = data.tokens[row]
        if data.label[row] == 0 or tokens.end <= tokens.begin:
            continue
        length = min(len(tokens.ids) - start, batch.room)
        places[i, : length + 2] = 0
        begin, end = np.clip([tokens.begin - start, tokens.end - start], 0, length)
        places[i, 1 + begin : 1 + end] = 1
    return places


def _common(first: str, second: str) -> int:
    """Length of the longest common beginning."""
    size = min(len(first), len(second))
    low, high = 0, size
    while low < high:
        middle = (low + high + 1) // 2
        if first[:middle] == second[:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def build_set(
    records: Sequence[Record], augmented: Sequence[Augmented], classes: Classes, tokenizer: str
) -> TrainingSet:
    """Tokenises the records and what augmentation made of them; ``tokenizer`` is the content of
    the tokenizer.json that ships, so that fine-tuning reads words as the scanner will.

    ``classes`` must cover all of them.
    """
    everything = [*records, *(item.record for item in augmented)]
    spans = payload_spans(records)
    for index, item in enumerate(augmented, start=len(records)):
        if item.end > item.begin:
            spans[index] = (item.begin, item.end)
    family, subfamily = classes.numbers(everything)
    return TrainingSet(
        records=everything,
        tokens=_tokenise(everything, spans, tokenizer),
        label=np.array([record.label for record in everything], dtype=np.int64),
        family=family,
        subfamily=subfamily,
    )


def _tokenise(
    records: Sequence[Record], spans: dict[int, tuple[int, int]], tokenizer: str
) -> list[Tokens]:
    from tokenizers import Tokenizer

    engine = Tokenizer.from_str(tokenizer)
    engine.no_truncation()
    engine.no_padding()
    engine.encode_special_tokens = True
    found = []
    for start in range(0, len(records), _CHUNK):
        texts = [_SURROGATES.sub("\ufffd", r.text) for r in records[start : start + _CHUNK]]
        encodings = engine.encode_batch(texts, add_special_tokens=False)
        for index, encoding in enumerate(encodings, start=start):
            begin = end = 0
            if index in spans:
                offsets = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
                begin = int(np.searchsorted(offsets[:, 1], spans[index][0], side="right"))
                end = int(np.searchsorted(offsets[:, 0], spans[index][1], side="left"))
            # A window around the payload stays; what is cut off is the far end of the text.
            first = max(0, begin - _STORED_TOKENS // 2)
            ids = np.array(encoding.ids[first : first + _STORED_TOKENS], dtype=np.int32)
            found.append(Tokens(ids, begin - first, min(end - first, len(ids))))
    return found
