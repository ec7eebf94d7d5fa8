"""The trigger source file: phrase grammar, validation, and compilation to `triggers.json`.

Grammar of a phrase (elements are separated by spaces):

    word            one word
    word*           any word that starts with it (at least three letters)
    (a|b*|c d)      alternatives; those of several words are expanded into phrases of their own
    [word] [(a|b)]  optional, expanded with and without
    ~N              between two elements: up to N other words may stand there (default none)

An apostrophe or hyphen inside a word splits it as it splits the text: `don't` is `don t`. Each
character of a script written without spaces is a word of its own, so `~N` counts characters
there. When an optional element between two gaps is left out, the gaps add up.

A literal is a substring of the normalised text, without word boundaries.
"""

from __future__ import annotations

import functools
import itertools
import tomllib
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from raxe_fast.errors import RaxeFastError

SCHEMA = 1
MAX_PHRASES_PER_TRIGGER = 256
MAX_GAP = 20
MIN_PREFIX = 3
MIN_LITERAL = 3

TAXONOMY: Mapping[str, tuple[str, ...]] = {
    "command_injection": (
        "code_interpreter_abuse",
        "shell_injection",
        "sql_injection",
        "template_path_ssrf_injection",
        "tool_abuse",
    ),
    "data_exfiltration": (
        "email_exfiltration",
        "sensitive_info_disclosure",
        "url_exfiltration",
    ),
    "encoding_obfuscation": (
        "base_n_encoding",
        "character_manipulation",
        "cipher",
        "code_wrapped",
        "escape_encoding",
        "mixed_encoding",
        "unicode_obfuscation",
    ),
    "harmful_content": (
        "crime_drugs",
        "fraud_misinformation",
        "hate_harassment",
        "malware_cybercrime",
        "other_harm",
        "self_harm",
        "sexual_content",
        "violence_weapons",
    ),
    "indirect_injection": (
        "code_injection",
        "document_injection",
        "email_injection",
        "tool_output_injection",
        "web_injection",
    ),
    "jailbreak": (
        "adversarial_suffix",
        "developer_mode",
        "fictional_scenario",
        "persona_roleplay",
        "persuasion_reframing",
        "rule_suppression",
    ),
    "pii_extraction": ("personal_data_request", "surveillance_tracking"),
    "prompt_injection": (
        "delimiter_escape",
        "goal_hijacking",
        "instruction_override",
        "multilingual_override",
    ),
    "system_prompt_extraction": ("prompt_leak", "secret_extraction"),
}


# The weight (P(attack | trigger fired)) of a trigger for which none was measured.
SEVERITIES: Mapping[str, float] = {"low": 0.30, "medium": 0.75, "high": 0.92, "critical": 0.98}
# "low" stays below 0.5 whatever was measured: alone it is evidence, never a verdict.
MAX_LOW_WEIGHT = 0.45

# A phrase made of one of these alone says nothing about intent.
_COMMON_TEXT = (
    "a about above access act admin all an and answer any api are as ask assistant attack be "
    "begin bomb bypass can case code command context could data decode delete disable "
    "disregard do does drop email encode everything exec execute fake file follow for forget "
    "from get give hack have help hidden how i ignore important in information inject "
    "injection instruction instructions is it jailbreak key kill language list make malware "
    "me mode model my new not note now of on only or output override password please pretend "
    "previous print prompt query read remove repeat request respond reveal role root rule "
    "rules run safe safety script secret security send shell show skip source step stop "
    "string summarize system table task tell test text that the then this to token tool "
    "translate update url use user virus what when who why with without word write you your "
)
_COMMON_WORDS = frozenset(_COMMON_TEXT.split())

Normaliser = Callable[[str], str]


class TriggerSourceError(RaxeFastError, ValueError):
    """The trigger source is wrong. `trigger` is its name (or None), `line` is 1-based (or None)."""

    def __init__(self, problem: str, *, trigger: str | None = None, line: int | None = None):
        self.problem = problem
        self.trigger = trigger
        self.line = line
        where = f" of trigger {trigger!r}" if trigger else ""
        at = f" (line {line})" if line else ""
        super().__init__(f"{problem}{where}{at}")


class PhraseError(TriggerSourceError):
    """A phrase or literal breaks the grammar, or says too little to be a pattern."""


@dataclass(frozen=True, slots=True)
class Element:
    """One step of a phrase: a set of words and prefixes, `max_gap` words after the step before."""

    words: tuple[str, ...]
    prefixes: tuple[str, ...]
    max_gap: int = 0


Phrase = tuple[Element, ...]


@dataclass(frozen=True, slots=True)
class Trigger:
    """One entry of the source file, as written."""

    name: str
    family: str
    subfamily: str
    severity: str
    description: str
    phrases: tuple[str, ...]
    literals: tuple[str, ...]
    examples: tuple[str, ...]
    near_misses: tuple[str, ...]
    line: int | None = None


@dataclass(frozen=True, slots=True)
class TriggerSource:
    """All triggers of a source file, in its order, with its lines for error messages."""

    triggers: tuple[Trigger, ...]
    lines: tuple[str, ...] = ()

    def line_of(self, trigger: Trigger, pattern: str) -> int | None:
        """Line of `pattern` (its first, if it spans several), or else the trigger's own line."""
        if trigger.line is None:
            return None
        pattern = pattern.strip().split("\n")[0].strip()
        for number in range(trigger.line, len(self.lines)):
            text = self.lines[number]
            if text.strip() == "[[trigger]]":
                break
            if pattern in text or pattern in text.replace("\\\\", "\\").replace('\\"', '"'):
                return number + 1
        return trigger.line


def core_normalise(text: str) -> str:
    """The normaliser of the shipped matcher, ignorable characters dropped."""
    from raxe_fast import _core

    return _core.normalize(text)[0]


_UNSPACED_NAMES = (
    "CJK COMPATIBILITY IDEOGRAPH",
    "CJK UNIFIED",
    "HANGZHOU NUMERAL",
    "HENTAIGANA",
    "HIRAGANA",
    "IDEOGRAPHIC",
    "KATAKANA",
    "KHMER",
    "LAO",
    "MASU MARK",
    "MYANMAR",
    "THAI",
    "VERTICAL IDEOGRAPHIC",
    "VERTICAL KANA",
)


@functools.cache
def _char_kind(char: str) -> str:
    """'separator', 'word' or 'unspaced', as the core's `char_class` sees a normalised character."""
    category = unicodedata.category(char)
    if char != "_" and category[0] not in "LN" and category != "Mc":
        return "separator"
    if category != "Nd" and unicodedata.name(char, "").startswith(_UNSPACED_NAMES):
        return "unspaced"
    return "word"


def split_words(text: str) -> list[str]:
    """The words of normalised `text`: runs of letters, digits and `_`; single unspaced letters."""
    words: list[str] = []
    joined = False
    for char in text:
        kind = _char_kind(char)
        if kind == "word" and joined:
            words[-1] += char
        elif kind != "separator":
            words.append(char)
        joined = kind == "word"
    return words


# An alternative is a sequence of (word, is_prefix); a group is its alternatives.
_Alternative = tuple[tuple[str, bool], ...]


@dataclass(frozen=True, slots=True)
class _Group:
    alternatives: tuple[_Alternative, ...]
    optional: bool
    gap: int


def _lex(phrase: str) -> list[str]:
    spaced = phrase
    for mark in "()[]|":
        spaced = spaced.replace(mark, f" {mark} ")
    return spaced.split()


class _PhraseParser:
    """Recursive descent over the tokens of one phrase."""

    def __init__(self, phrase: str, normalise: Normaliser):
        self._tokens = _lex(phrase)
        self._at = 0
        self._normalise = normalise

    def parse(self) -> tuple[_Group, ...]:
        groups: list[_Group] = []
        gap: int | None = None
        while (token := self._peek()) is not None:
            if token.startswith("~"):
                if gap is not None:
                    raise PhraseError("two gaps in a row")
                if not groups:
                    raise PhraseError("a gap stands before the first element")
                gap = self._gap(token)
                continue
            optional = token == "["
            if optional:
                self._at += 1
            alternatives = self._alternatives(optional)
            if optional:
                self._expect("]")
            groups.append(_Group(alternatives, optional, gap or 0))
            gap = None
        if gap is not None:
            raise PhraseError("a gap stands after the last element")
        if not groups:
            raise PhraseError("the phrase is empty")
        return tuple(groups)

    def _peek(self) -> str | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _expect(self, mark: str) -> None:
        if self._peek() != mark:
            raise PhraseError(f"{mark!r} is missing before {self._peek() or 'the end'!r}")
        self._at += 1

    def _gap(self, token: str) -> int:
        digits = token[1:]
        if not (digits.isascii() and digits.isdigit()) or not 1 <= int(digits) <= MAX_GAP:
            raise PhraseError(f"{token!r} is no gap: ~1 to ~{MAX_GAP}")
        self._at += 1
        return int(digits)

    def _alternatives(self, optional: bool) -> tuple[_Alternative, ...]:
        if self._peek() != "(":
            return (self._words() if optional else self._word(),)
        self._at += 1
        found = [self._words()]
        while self._peek() == "|":
            self._at += 1
            found.append(self._words())
        self._expect(")")
        return tuple(dict.fromkeys(found))

    def _words(self) -> _Alternative:
        words = list(self._word())
        while (token := self._peek()) is not None and token not in "()[]|":
            words.extend(self._word())
        return tuple(words)

    def _word(self) -> _Alternative:
        token = self._peek()
        if token is None or token in "()[]|" or token.startswith("~"):
            raise PhraseError(f"a word is missing before {token or 'the end'!r}")
        self._at += 1
        prefix = token.endswith("*")
        parts = split_words(self._normalise(token.removesuffix("*")))
        if "*" in token[:-1] or "~" in token:
            raise PhraseError(f"{token!r} holds a grammar sign inside the word")
        if not parts:
            raise PhraseError(f"{token!r} has no letter or digit")
        # A Hangul syllable holds what two or three Latin letters do.
        if prefix and len(parts[-1]) < (MIN_PREFIX if parts[-1].isascii() else 2):
            raise PhraseError(f"the prefix {token!r} is shorter than {MIN_PREFIX} letters")
        last = len(parts) - 1
        return tuple((part, prefix and i == last) for i, part in enumerate(parts))


def _choices(group: _Group) -> list[Phrase]:
    """The readings of one group: all one-word alternatives at once, each longer one by itself."""
    single = [alternative[0] for alternative in group.alternatives if len(alternative) == 1]
    choices: list[Phrase] = []
    if single:
        words = tuple(sorted({word for word, prefix in single if not prefix}))
        prefixes = tuple(sorted({word for word, prefix in single if prefix}))
        choices.append((Element(words, prefixes),))
    longer: list[Phrase] = [
        tuple(Element((), (w,)) if prefix else Element((w,), ()) for w, prefix in alternative)
        for alternative in group.alternatives
        if len(alternative) > 1
    ]
    choices.extend(_merge(longer))
    if group.optional:
        choices.append(())
    return choices


def _merge(phrases: Iterable[Phrase]) -> list[Phrase]:
    """The same language in fewer phrases: those that differ in one element only become one."""
    merged = list(dict.fromkeys(phrases))
    again = True
    while again:
        again = False
        for place in range(max((len(phrase) for phrase in merged), default=0)):
            groups: dict[object, Phrase] = {}
            for phrase in merged:
                if place >= len(phrase):
                    groups[phrase] = phrase
                    continue
                rest = (phrase[:place], phrase[place + 1 :], phrase[place].max_gap)
                other = groups.get(rest)
                groups[rest] = _join(other, phrase, place) if other else phrase
            again = again or len(groups) < len(merged)
            merged = list(groups.values())
    return merged


def _join(left: Phrase, right: Phrase, place: int) -> Phrase:
    one, two = left[place], right[place]
    both = Element(
        tuple(sorted({*one.words, *two.words})),
        tuple(sorted({*one.prefixes, *two.prefixes})),
        one.max_gap,
    )
    return (*left[:place], both, *left[place + 1 :])


def expand_phrase(phrase: str, normalise: Normaliser = core_normalise) -> list[Phrase]:
    """All flat phrases of `phrase`, normalised, in a fixed order, merged where that is exact.

    Raises PhraseError for broken grammar, more than MAX_PHRASES_PER_TRIGGER expansions, or an
    expansion that is empty or a single common word.
    """
    groups = _PhraseParser(phrase, normalise).parse()
    choices = [_choices(group) for group in groups]
    count = 1
    for options in choices:
        count *= len(options)
    if count > MAX_PHRASES_PER_TRIGGER:
        raise PhraseError(f"{count} expansions, more than {MAX_PHRASES_PER_TRIGGER}")
    expanded: dict[Phrase, None] = {}
    for combination in itertools.product(*choices):
        flat: list[Element] = []
        pending = 0
        for group, elements in zip(groups, combination, strict=True):
            pending += group.gap
            for element in elements:
                gap = min(pending, MAX_GAP) if flat else 0
                flat.append(Element(element.words, element.prefixes, gap))
                pending = 0
        _check_telling(flat)
        expanded[tuple(flat)] = None
    return _merge(expanded)


def _check_telling(flat: Sequence[Element]) -> None:
    if not flat:
        raise PhraseError("an expansion is empty: some element must not be optional")
    if len(flat) == 1:
        for word in (*flat[0].words, *flat[0].prefixes):
            if word in _COMMON_WORDS or len(word) < MIN_PREFIX:
                raise PhraseError(f"an expansion is the single common word {word!r}")


def normalise_literal(literal: str, normalise: Normaliser = core_normalise) -> str:
    """The literal as the matcher searches it. Raises PhraseError when too little is left."""
    text = normalise(literal)
    marks = [char for char in text if not char.isspace()]
    unspaced = sum(_char_kind(char) == "unspaced" for char in marks)
    # Three Han characters say about as much as a short English phrase; two are a common word.
    if len(marks) < MIN_LITERAL or (marks and unspaced == len(marks) and len(marks) < 4):
        raise PhraseError(f"the literal {literal!r} is too short")
    if "".join(marks) in _COMMON_WORDS:
        raise PhraseError(f"the literal {literal!r} is a common word")
    return text


def load_source(path: Path | str | None = None) -> TriggerSource:
    """Reads and validates a trigger source; None reads the one that comes with the package.

    Raises TriggerSourceError for bad TOML or a bad entry, OSError for an unreadable file.
    Patterns are checked by `compile_triggers`, which has the normaliser.
    """
    if path is None:
        text = (resources.files(__package__) / "triggers.toml").read_text(encoding="utf-8")
    else:
        text = Path(path).read_text(encoding="utf-8")
    return parse_source(text)


def parse_source(text: str) -> TriggerSource:
    """`load_source` for the text of a source file."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TriggerSourceError(f"not valid TOML: {error}") from error
    entries = document.pop("trigger", None)
    if document:
        raise TriggerSourceError(f"unknown top-level key {next(iter(document))!r}")
    if not isinstance(entries, list) or not entries:
        raise TriggerSourceError("no [[trigger]] entry")
    lines = tuple(text.splitlines())
    starts = [i + 1 for i, line in enumerate(lines) if line.strip() == "[[trigger]]"]
    known = starts if len(starts) == len(entries) else [None] * len(entries)
    triggers: list[Trigger] = []
    seen: set[str] = set()
    for entry, line in zip(entries, known, strict=True):
        trigger = _parse_entry(entry, line)
        if trigger.name in seen:
            raise TriggerSourceError("second definition", trigger=trigger.name, line=line)
        seen.add(trigger.name)
        triggers.append(trigger)
    return TriggerSource(tuple(triggers), lines)


_TEXT_KEYS = ("name", "family", "subfamily", "severity", "description")
_LIST_KEYS = ("phrases", "literals", "examples", "near_misses")


def _parse_entry(entry: Any, line: int | None) -> Trigger:
    name = entry.get("name") if isinstance(entry, dict) else None

    def fail(problem: str) -> TriggerSourceError:
        shown = name if isinstance(name, str) else None
        return TriggerSourceError(problem, trigger=shown, line=line)

    if not isinstance(entry, dict):
        raise fail("an entry is not a table")
    for key in entry:
        if key not in _TEXT_KEYS and key not in _LIST_KEYS:
            raise fail(f"unknown key {key!r}")
    for key in _TEXT_KEYS:
        if not isinstance(entry.get(key), str) or not entry[key].strip():
            raise fail(f"{key!r} must be a non-empty string")
    lists: dict[str, tuple[str, ...]] = {}
    for key in _LIST_KEYS:
        value = entry.get(key, [])
        if not isinstance(value, list) or not all(isinstance(x, str) and x for x in value):
            raise fail(f"{key!r} must be a list of non-empty strings")
        if len(set(value)) != len(value):
            raise fail(f"{key!r} holds the same string twice")
        lists[key] = tuple(value)
    if not all(part.isalnum() and part.isascii() for part in entry["name"].split("_")):
        raise fail("'name' must be lower_snake_case")
    if entry["family"] not in TAXONOMY:
        raise fail(f"unknown family {entry['family']!r}")
    if entry["subfamily"] not in TAXONOMY[entry["family"]]:
        raise fail(f"{entry['family']!r} has no subfamily {entry['subfamily']!r}")
    if entry["severity"] not in SEVERITIES:
        raise fail(f"unknown severity {entry['severity']!r}")
    if not lists["phrases"] and not lists["literals"]:
        raise fail("no phrase and no literal")
    for key in ("examples", "near_misses"):
        if not lists[key]:
            raise fail(f"{key!r} needs at least one text")
    return Trigger(
        name=entry["name"],
        family=entry["family"],
        subfamily=entry["subfamily"],
        severity=entry["severity"],
        description=entry["description"],
        phrases=lists["phrases"],
        literals=lists["literals"],
        examples=lists["examples"],
        near_misses=lists["near_misses"],
        line=line,
    )


def compile_triggers(
    source: TriggerSource,
    weights: Mapping[str, float] | None = None,
    normalise: Normaliser = core_normalise,
) -> dict[str, Any]:
    """The content of `triggers.json`, deterministic, with every pattern normalised.

    `weights` maps trigger names to P(attack | fired) in [0, 1); a trigger without one gets the
    default of its severity, and a "low" one never more than MAX_LOW_WEIGHT. Raises PhraseError for
    a bad pattern (with the trigger and its line), TriggerSourceError for a weight of an unknown
    trigger or out of range.
    """
    weights = dict(weights or {})
    compiled = []
    for trigger in source.triggers:
        weight = weights.pop(trigger.name, SEVERITIES[trigger.severity])
        if not 0.0 <= weight < 1.0:
            raise TriggerSourceError(f"weight {weight!r} outside [0, 1)", trigger=trigger.name)
        if trigger.severity == "low":
            weight = min(weight, MAX_LOW_WEIGHT)
        phrases, literals = _compile_patterns(source, trigger, normalise)
        compiled.append(
            {
                "name": trigger.name,
                "family": trigger.family,
                "subfamily": trigger.subfamily,
                "severity": trigger.severity,
                "weight": float(weight),
                "description": trigger.description,
                "phrases": [
                    [
                        {
                            "words": list(element.words),
                            "prefixes": list(element.prefixes),
                            "max_gap": element.max_gap,
                        }
                        for element in phrase
                    ]
                    for phrase in phrases
                ],
                "literals": literals,
            }
        )
    if weights:
        raise TriggerSourceError("weight for an unknown trigger", trigger=next(iter(weights)))
    return {"schema": SCHEMA, "triggers": compiled}


def _compile_patterns(
    source: TriggerSource, trigger: Trigger, normalise: Normaliser
) -> tuple[list[Phrase], list[str]]:
    phrases: dict[Phrase, None] = {}
    literals: dict[str, None] = {}
    for pattern in (*trigger.phrases, *trigger.literals):
        try:
            if pattern in trigger.literals:
                literals[normalise_literal(pattern, normalise)] = None
            if pattern in trigger.phrases:
                phrases.update(dict.fromkeys(expand_phrase(pattern, normalise)))
        except PhraseError as error:
            raise PhraseError(
                f"{error.problem}, in {pattern!r}",
                trigger=trigger.name,
                line=source.line_of(trigger, pattern),
            ) from None
    merged = _merge(phrases)
    if len(merged) > MAX_PHRASES_PER_TRIGGER:
        raise PhraseError(
            f"{len(merged)} phrases, more than {MAX_PHRASES_PER_TRIGGER}",
            trigger=trigger.name,
            line=trigger.line,
        )
    return merged, list(literals)


def check_examples(
    source: TriggerSource, fired: Callable[[str], Iterable[int]]
) -> list[TriggerSourceError]:
    """What is wrong with examples and near-misses; `fired` gives the trigger indices of a text."""
    problems = []
    for index, trigger in enumerate(source.triggers):
        for text in trigger.examples:
            if index not in set(fired(text)):
                problems.append(
                    TriggerSourceError(
                        f"does not match its example {text!r}",
                        trigger=trigger.name,
                        line=trigger.line,
                    )
                )
        for text in trigger.near_misses:
            if index in set(fired(text)):
                problems.append(
                    TriggerSourceError(
                        f"matches its near-miss {text!r}", trigger=trigger.name, line=trigger.line
                    )
                )
    return problems
