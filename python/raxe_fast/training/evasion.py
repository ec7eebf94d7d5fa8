"""Variants of an attack that still ask for the same, and a search for one that screening passes.

An attacker who knows the screening stage pads attacks with harmless sentences, so that they share
windows, or rewords them until the stage is satisfied. Everything here is text in, text out: what a
text is worth to the attacker is a function of the caller's, and lower is better.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from math import inf, isnan
from typing import Literal

from raxe_fast.training.evasion_words import CODE_SWITCH, FIELDS, FRAMES, SYNONYMS
from raxe_fast.training.robustness_documents import sentence_borders

__all__ = [
    "PLACES",
    "Found",
    "Part",
    "Place",
    "Rule",
    "carrier_sentences",
    "is_prose",
    "pad",
    "padding_rules",
    "reword",
    "rules",
    "search",
    "sentences",
    "shuffled",
]

# Which half of the frames and words: a fit that was hardened with one is reported on the other.
Part = Literal["fit", "report"]
Place = Literal["before", "after", "around"]
PLACES: tuple[Place, ...] = ("before", "after", "around")
Edit = Callable[[str, random.Random], str | None]

# A word of prose, which may be changed: no part of a path, an address, code or an encoded text.
_WORD = re.compile(r"(?<![^\s\"'(\[])[^\W\d_]{2,20}(?=[.,;:!?\"')\]]*(?:\s|$))")
_PROSE = 0.7  # of the characters that are not white space
_JOINT = re.compile(r",? (and|but|so|then) (?=[^\W\d_])|; (?=[^\W\d_])")
_SENTENCE_TOKENS = (3, 60)


@dataclass(frozen=True, slots=True)
class Rule:
    """An edit: what it makes of a text, None where it has nothing to do. ``once``: not again on
    what it has made."""

    name: str
    apply: Edit
    once: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found. ``trail``: the texts that were better than all before them and what
    they are worth, the original first; ``queries``: texts that were valued."""

    trail: tuple[tuple[str, float], ...]
    queries: int

    @property
    def text(self) -> str:
        return self.trail[-1][0]

    @property
    def value(self) -> float:
        return self.trail[-1][1]


# ---- parts of texts ------------------------------------------------------------------------------


def sentences(text: str) -> list[str]:
    """The sentences and lines of a text, stripped, without empty ones."""
    borders = sentence_borders(text)
    found = (text[a:b].strip() for a, b in pairwise(borders))
    return [sentence for sentence in found if sentence]


def is_prose(text: str) -> bool:
    """Whether a text consists of words for the most part: no code, no encoded text."""
    solid = sum(not character.isspace() for character in text)
    return solid > 0 and sum(len(word) for word in _WORD.findall(text)) >= _PROSE * solid


# ---- padding -------------------------------------------------------------------------------------


def shuffled(pool: Sequence[str], rng: random.Random) -> Iterator[str]:
    """Sentences of a pool without end: all of them, in a new order each time."""
    while pool:
        yield from rng.sample(pool, len(pool))


def carrier_sentences(
    texts: Sequence[str], rng: random.Random, count_tokens: Callable[[str], int]
) -> Iterator[str]:
    """Sentences of harmless texts without end, those of one text in a row and in its order;
    without very short and very long ones, and without texts that have no other."""
    low, high = _SENTENCE_TOKENS
    left = list(texts)
    while left:
        order, left = rng.sample(left, len(left)), []
        for text in order:
            fit = [part for part in sentences(text) if low <= count_tokens(part) <= high]
            if fit:
                left.append(text)
            yield from fit


def pad(
    attack: str,
    filler: Iterator[str],
    tokens: int,
    place: Place,
    count_tokens: Callable[[str], int],
) -> str:
    """The attack, unchanged, with about ``tokens`` tokens of whole sentences before, after or
    around it (then half of the sentences' tokens on either side, to a sentence).

    Takes at least one sentence, of which there must be one, and as many as bring the sum nearest to
    ``tokens``. Raises ValueError for ``tokens`` below 1 or an empty filler.
    """
    if tokens < 1:
        raise ValueError(f"tokens must be at least 1, not {tokens}")
    parts: list[str] = []
    sizes: list[int] = []
    for sentence in filler:
        size = count_tokens(sentence)
        short = tokens - sum(sizes)
        if parts and size - short > short:
            break
        parts.append(sentence)
        sizes.append(size)
        if size >= short:
            break
    if not parts:
        raise ValueError("there is nothing to pad with")
    lead = {"before": len(parts), "after": 0}.get(place)
    if lead is None:
        lead = min(range(len(parts) + 1), key=lambda n: abs(2 * sum(sizes[:n]) - sum(sizes)))
    space = "\n" if "\n" in attack.strip() else " "
    return space.join([*parts[:lead], attack, *parts[lead:]])


def padding_rules(pool: Sequence[str]) -> tuple[Rule, ...]:
    """Rules that put one to three harmless sentences before or after a text; none without any."""

    def put(before: bool, text: str, rng: random.Random) -> str:
        extra = " ".join(rng.sample(pool, min(rng.randint(1, 3), len(pool))))
        return f"{extra} {text}" if before else f"{text} {extra}"

    if not pool:
        return ()
    return (Rule("pad_before", partial(put, True)), Rule("pad_after", partial(put, False)))


# ---- edits ---------------------------------------------------------------------------------------


def rules(part: Part) -> tuple[Rule, ...]:
    """Edits that keep what a text asks for. Frames and fields leave it as it is inside them;
    the others change words, their order or what stands between them, and only in prose."""
    half = 0 if part == "fit" else 1

    def frame(kind: str) -> Edit:
        return lambda text, rng: rng.choice(FRAMES[kind][half::2]).replace("{a}", text)

    prose: dict[str, Edit] = {
        "lower_case": _lower_case,
        "punctuation": _fewer_points if part == "fit" else _semicolons,
        "typos": _typos,
        "synonym": partial(_replaced, SYNONYMS, half),
        "code_switch": partial(_replaced, CODE_SWITCH, half),
        "reorder": _reordered,
        "split": _split,
        "lines": _lines,
        "list": _bullets if part == "fit" else _numbers,
    }
    once = {"lower_case", "punctuation", "lines", "list"}
    return (
        *(Rule(kind, frame(kind), once=True) for kind in FRAMES),
        Rule("json", partial(_json, half), once=True),
        *(Rule(name, _in_prose(edit), once=name in once) for name, edit in prose.items()),
    )


def _in_prose(edit: Edit) -> Edit:
    def checked(text: str, rng: random.Random) -> str | None:
        if text.startswith("{") or not is_prose(text):  # a JSON record stays one
            return None
        made = edit(text, rng)
        return None if made == text else made

    return checked


def _json(half: int, text: str, rng: random.Random) -> str:
    name, others = rng.choice(FIELDS[half::2])
    items = [*others.items(), (name, text)]
    rng.shuffle(items)
    return json.dumps(dict(items), ensure_ascii=False)


def _lower_case(text: str, rng: random.Random) -> str:
    return _WORD.sub(lambda match: match[0].lower(), text)


def _fewer_points(text: str, rng: random.Random) -> str:
    return re.sub(r"(?<=\w)[.,!](?=\s|$)", "", text)


def _semicolons(text: str, rng: random.Random) -> str:
    return re.sub(r"(?<=\w)[.!](?=\s+\w)", ";", text)


def _typos(text: str, rng: random.Random) -> str | None:
    """Two inner letters change places, in every fourth word of five letters or more."""
    first = rng.randrange(4)
    number = 0

    def spoilt(match: re.Match[str]) -> str:
        nonlocal number
        word = match[0]
        if len(word) < 5 or not word.isascii():
            return word
        number += 1
        if (number - 1) % 4 != first:
            return word
        at = rng.randrange(1, len(word) - 2)
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]

    return _WORD.sub(spoilt, text)


def _replaced(
    words: dict[str, tuple[str, str]], half: int, text: str, rng: random.Random
) -> str | None:
    """All places of one word of a list, at random among those that stand in the text."""
    present = [word for word in words if _phrase(word).search(text)]
    if not present:
        return None
    word = rng.choice(present)
    new = words[word][half]

    def cased(match: re.Match[str]) -> str:
        return new[0].upper() + new[1:] if match[0][0].isupper() else new

    return _phrase(word).sub(cased, text)


def _phrase(words: str) -> re.Pattern[str]:
    return re.compile(
        rf"(?<![^\s\"'(\[]){re.escape(words)}(?=[.,;:!?\"')\]]*(?:\s|$))", re.IGNORECASE
    )


def _reordered(text: str, rng: random.Random) -> str | None:
    """One sentence stands somewhere else."""
    parts = sentences(text)
    if len(parts) < 2:
        return None
    moved = parts.pop(old := rng.randrange(len(parts)))
    parts.insert(rng.choice([i for i in range(len(parts) + 1) if i != old]), moved)
    return " ".join(parts)


def _split(text: str, rng: random.Random) -> str | None:
    """Two sentences out of one, at a joint."""
    joints = list(_JOINT.finditer(text))
    if not joints:
        return None
    joint = rng.choice(joints)
    rest = text[joint.end() :]
    word = joint[1]
    follow = f"{word.capitalize()} {rest}" if word else rest[:1].upper() + rest[1:]
    return f"{text[: joint.start()]}. {follow}"


def _lines(text: str, rng: random.Random) -> str | None:
    parts = sentences(text)
    return "\n\n".join(parts) if len(parts) > 1 else None


def _bullets(text: str, rng: random.Random) -> str:
    return "\n".join(f"- {part}" for part in sentences(text))


def _numbers(text: str, rng: random.Random) -> str:
    return "\n".join(f"{i}. {part}" for i, part in enumerate(sentences(text), 1))


def reword(text: str, edits: Sequence[Rule], count: int, rng: random.Random) -> str:
    """The text after ``count`` edits drawn from ``edits``; fewer where some have nothing to do."""
    used: set[str] = set()
    for _ in range(count):
        rule = rng.choice(edits)
        if rule.once and rule.name in used:
            continue
        text = rule.apply(text, rng) or text
        used.add(rule.name)
    return text


# ---- search --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _State:
    value: float
    text: str
    used: frozenset[str]


def search(
    text: str,
    edits: Sequence[Rule],
    worth: Callable[[str], float],
    *,
    budget: int = 60,
    pool: int = 12,
    beam: int = 2,
    stop_below: float = -inf,
    seed: int = 0,
    max_chars: int = 8_000,
) -> Found:
    """Beam search for the variant of least worth, which begins with the text itself.

    In each round ``pool`` new variants are valued, made by one more edit of the ``beam`` best so
    far; it ends below ``stop_below``, after ``budget`` texts in all, or where nothing new comes.
    No variant is valued twice or longer than ``max_chars`` (the text's own length where that is
    more). NaN is worth infinity. The same arguments give the same result, and a lower
    ``stop_below`` goes on where a higher one would have stopped. Raises ValueError for a budget,
    pool or beam below 1.
    """
    if min(budget, pool, beam) < 1:
        raise ValueError("budget, pool and beam must be at least 1")
    rng = random.Random(f"{seed}:{text}")
    limit = max(max_chars, len(text))
    seen: set[str] = set()
    trail: list[tuple[str, float]] = []

    def valued(candidate: str, used: frozenset[str]) -> _State:
        seen.add(candidate)
        value = worth(candidate)
        value = inf if isnan(value) else value
        if not trail or value < trail[-1][1]:
            trail.append((candidate, value))
        return _State(value, candidate, used)

    def new(states: Sequence[_State]) -> Iterator[tuple[str, frozenset[str]]]:
        """Variants not seen so far, of each state in turn."""
        for turn in range(4 * pool):
            state = states[turn % len(states)]
            rule = rng.choice(edits)
            if rule.once and rule.name in state.used:
                continue
            candidate = rule.apply(state.text, rng)
            if candidate is not None and candidate not in seen and len(candidate) <= limit:
                yield candidate, state.used | {rule.name}

    states = [valued(text, frozenset())]
    while edits and len(seen) < budget and not trail[-1][1] < stop_below:
        made: list[_State] = []
        for candidate, used in new(states):
            made.append(valued(candidate, used))
            if len(made) >= pool or len(seen) >= budget or made[-1].value < stop_below:
                break
        if not made:
            break
        states = sorted([*states, *made], key=lambda state: state.value)[:beam]
    return Found(tuple(trail), len(seen))
