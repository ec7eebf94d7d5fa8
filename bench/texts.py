"""Benchmark inputs: composed texts of an exact token count, and a sample of the test corpus."""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
from pathlib import Path
from typing import Any, Protocol

from sentences import ATTACK, HARMLESS

FILLER = "and"  # one token in every English WordPiece vocabulary; checked by `compose`


class TokenCounter(Protocol):
    """What `compose` needs of a tokenizer: the `tokenizers.Tokenizer` interface."""

    def encode(self, sequence: str, /) -> Any: ...


def count(tokenizer: TokenCounter, text: str) -> int:
    """Tokens of `text`, the special ones ([CLS], [SEP]) included."""
    return len(tokenizer.encode(text).ids)


def compose(tokenizer: TokenCounter, tokens: int, *, attack: bool, seed: int) -> str:
    """A text of exactly `tokens` tokens (special tokens included) from shuffled sentences.

    Raises ValueError if the tokenizer cannot reach that count with these words.
    """
    source = list(ATTACK if attack else HARMLESS)
    rng = random.Random(f"{tokens}/{attack}/{seed}")
    words: list[str] = []
    special = count(tokenizer, "")
    total = special
    while total < tokens:
        rng.shuffle(source)
        for sentence in source:
            for word in sentence.split():
                size = count(tokenizer, word) - special
                if total + size <= tokens:
                    words.append(word)
                    total += size
            if total >= tokens:
                break
    text = " ".join(words)
    for _ in range(8):
        missing = tokens - count(tokenizer, text)
        if missing == 0:
            return text
        if missing > 0:
            text += f" {FILLER}" * missing
        else:
            text = text.rsplit(" ", -missing)[0]
    raise ValueError(f"cannot compose a text of exactly {tokens} tokens")


def bucket_texts(tokenizer: TokenCounter, tokens: int, variants: int) -> list[str]:
    """`variants` texts of exactly `tokens` tokens, harmless and attack in turn."""
    return [compose(tokenizer, tokens, attack=bool(i % 2), seed=i // 2) for i in range(variants)]


def document(characters: int, *, attack: bool, seed: int) -> str:
    """A text of exactly `characters` characters from shuffled sentences: harmless ones, and with
    `attack` one sentence of an attack in the middle."""
    rng = random.Random(f"document/{characters}/{attack}/{seed}")
    sentences: list[str] = []
    size = 0
    while size < characters:
        shuffled = list(HARMLESS)
        rng.shuffle(shuffled)
        sentences += shuffled
        size += sum(len(sentence) + 1 for sentence in shuffled)
    text = " ".join(sentences)[:characters]
    if not attack:
        return text
    payload = f" {rng.choice(ATTACK)} "[:characters]
    begin = (characters - len(payload)) // 2
    return text[:begin] + payload + text[begin + len(payload) :]


def default_mix(repository: Path) -> Path:
    """Where the test corpus lies: $RAXE_FAST_CORPUS, or shared/data beside the repository."""
    folder = os.environ.get("RAXE_FAST_CORPUS")
    base = Path(folder) if folder else repository.parent / "shared" / "data"
    return base / "test.jsonl.gz"


def sample_corpus(path: Path, size: int, seed: int = 20240601) -> list[str]:
    """`size` texts drawn without repetition (all of them if there are fewer), in random order.

    path: JSON Lines with a "text" field, gzip-compressed where the name ends in .gz.
    Raises OSError if it cannot be read, ValueError naming the line for a bad record.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    texts: list[str] = []
    with opener(path, "rt", encoding="utf-8") as lines:  # type: ignore[operator]
        for number, line in enumerate(lines, 1):
            try:
                text = json.loads(line)["text"]
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{path.name}, line {number}: no text ({error})") from error
            if not isinstance(text, str):
                raise ValueError(f"{path.name}, line {number}: text is not a string")
            texts.append(text)
    random.Random(seed).shuffle(texts)
    return texts[:size]


def drawn_mix(parser: argparse.ArgumentParser, options: argparse.Namespace) -> list[str]:
    """`options.texts` texts of `options.mix`, for a program that scans them in blocks of
    `options.block`; what cannot be ends it with the parser's error."""
    if min(options.texts, options.block) < 1:
        parser.error("--texts and --block must be at least 1")
    if not options.mix.is_file():
        parser.error(f"there is no corpus at {options.mix}")
    return sample_corpus(options.mix, options.texts)
