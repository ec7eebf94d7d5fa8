"""Puts words that are left out into an encoder's tokenizer.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from raxe_fast.errors import ModelFormatError, WordListError
from raxe_fast.left_out_words import split_step, words_of
from raxe_fast.training.encoder_source import TOKENIZER, EncoderSource

__all__ = ["COMMON_TOKENS", "leave_out", "left_out_ids", "pre_tokenizer_steps", "read_words"]

# Punctuation and function words: about a third of the tokens of real texts. Words that carry
# meaning for attacks ("you", "not", "must") are not among them.
COMMON_TOKENS = Path(__file__).with_name("common_tokens.txt")
_BERT = {"type": "BertPreTokenizer"}


def read_words(path: Path | str) -> list[str]:
    """The words of a file: UTF-8, one a line, without the white space around it; empty lines and
    lines that begin with "# " are no words. Raises WordListError where it cannot be read."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise WordListError(f"cannot be read: {error}", path=path) from error
    lines = (line.strip() for line in text.split("\n") if not line.startswith("# "))
    return [line for line in lines if line]


def leave_out(source: EncoderSource, words: Sequence[str]) -> EncoderSource:
    """``source`` with a tokenizer.json that leaves out ``words`` and no others: where they stand
    alone, in any case and with any accents, as its normaliser and splitter read them.

    Raises WordListError for no words, one that is not one word to them or is longer than
    WordPiece takes, and one that appears twice; ModelFormatError for a tokenizer.json whose
    pre_tokenizer is not BERT's.
    """
    steps = pre_tokenizer_steps(source.tokenizer.get("pre_tokenizer"))
    if steps[:1] != [_BERT]:
        raise ModelFormatError("its pre_tokenizer is not BERT's, which leaving words out needs",
                               path=source.path, member=TOKENIZER)  # fmt: skip
    rest = steps[1:] if len(steps) == 1 or words_of(steps[1]) is None else steps[2:]
    steps = [_BERT, split_step(_normal(source, words)), *rest]
    pre_tokenizer = {"type": "Sequence", "pretokenizers": steps}
    return replace(source, tokenizer={**source.tokenizer, "pre_tokenizer": pre_tokenizer})


def left_out_ids(source: EncoderSource, student: EncoderSource) -> tuple[list[int], list[int]]:
    """Ids of the words that ``source`` reads and ``student``, made from it, leaves out, and ids of
    the tokens that continue a word: such an id that one of those follows is the beginning of a
    longer word, which both read. Without the others the tokens of one are those of the other.

    Raises WordListError for a word that is not one token of the vocabulary, and for one that only
    the source leaves out.
    """
    from tokenizers import Tokenizer

    mine, theirs = _words_left_out(student), _words_left_out(source)
    surplus = sorted(set(theirs) - set(mine))
    if surplus:
        raise WordListError(f"{surplus[0]!r} is read by the student and not by its teacher")
    vocabulary = Tokenizer.from_str(json.dumps(source.tokenizer)).get_vocab()
    words = []
    for word in mine:
        if word in theirs:
            continue
        if word not in vocabulary:
            raise WordListError(f"{word!r} is more than one token, and a teacher reads beside")
        words.append(vocabulary[word])
    prefix = source.tokenizer["model"].get("continuing_subword_prefix", "##")
    return words, sorted(i for token, i in vocabulary.items() if token.startswith(prefix))


def _words_left_out(source: EncoderSource) -> list[str]:
    for step in pre_tokenizer_steps(source.tokenizer.get("pre_tokenizer")):
        words = words_of(step)
        if words is not None:
            return words
    return []


def _normal(source: EncoderSource, words: Sequence[str]) -> list[str]:
    """The words as the normaliser of a BERT tokenizer.json writes them."""
    from tokenizers import Tokenizer

    try:
        reader = Tokenizer.from_str(json.dumps({**source.tokenizer, "pre_tokenizer": _BERT}))
    except Exception as error:  # tokenizers raises bare Exception
        raise ModelFormatError(f"is not a tokenizer: {error}", path=source.path,
                               member=TOKENIZER) from error  # fmt: skip
    limit = source.tokenizer["model"].get("max_input_chars_per_word")
    found: dict[str, str] = {}
    for word in words:
        try:
            text = word if reader.normalizer is None else reader.normalizer.normalize_str(word)
            pieces = [piece for piece, _ in reader.pre_tokenizer.pre_tokenize_str(text)]
        except (TypeError, UnicodeEncodeError) as error:
            raise WordListError(f"{word!r} is no text") from error
        if len(pieces) != 1:
            raise WordListError(f"{word!r} is {len(pieces)} words to the tokenizer, not one")
        if isinstance(limit, int) and len(pieces[0]) > limit:
            raise WordListError(f"{word!r} is longer than the {limit} characters of a word")
        if pieces[0] in found:
            raise WordListError(f"{word!r} is the same word as {found[pieces[0]]!r}")
        found[pieces[0]] = word
    if not found:
        raise WordListError("there are no words to leave out")
    return list(found)


def pre_tokenizer_steps(pre_tokenizer: Any) -> list[Any]:
    """The steps of a pre_tokenizer, those of Sequences within it in their place."""
    if not isinstance(pre_tokenizer, dict) or pre_tokenizer.get("type") != "Sequence":
        return [pre_tokenizer]
    steps = pre_tokenizer.get("pretokenizers")
    if not isinstance(steps, list):
        return [pre_tokenizer]
    return [step for item in steps for step in pre_tokenizer_steps(item)]
