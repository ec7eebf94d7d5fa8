"""Text -> token ids and spans: by the core where it knows the tokenizer.json, else by the
``tokenizers`` library, with the same results."""

from __future__ import annotations

import json
import re
from hashlib import sha256
from itertools import chain
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, Protocol
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from raxe_fast import _core
from raxe_fast.errors import ModelFormatError
from raxe_fast.left_out_words import words_of

if TYPE_CHECKING:
    from tokenizers import Encoding

__all__ = [
    "LibraryTokeniser",
    "NativeTokeniser",
    "Tokeniser",
    "TokeniserKind",
    "Tokens",
    "open_tokeniser",
]

TokeniserKind = Literal["native", "tokenizers"]

_SURROGATES = re.compile("[\ud800-\udfff]")
_PREFIX = "##"
_MAX_WORD = 1000  # what the core takes


class Tokens(Protocol):
    """The tokens of one text, without special ones."""

    def __len__(self) -> int: ...

    def token_to_chars(self, index: int) -> tuple[int, int]:
        """Code points [begin, end) of the text that a token covers."""

    def row(self, start: int, stop: int, first: int, last: int) -> npt.NDArray[np.int64]:
        """int64 (1, n): the ids of tokens [start, stop) between ``first`` and ``last``."""


class Tokeniser(Protocol):
    """Immutable and thread-safe. ``around``: the ids that the file puts around an empty text."""

    kind: TokeniserKind
    around: tuple[int, ...]

    def encode(self, text: str) -> Tokens:
        """Texts are data: a literal "[SEP]" in one is read as five characters, never as the special
        token. Lone surrogates are read as U+FFFD. Raises TypeError for what is no ``str``."""


def open_tokeniser(content: bytes | str, kind: TokeniserKind | None = None) -> Tokeniser:
    """The tokeniser of a tokenizer.json; its truncation and padding are ignored.

    ``kind`` None takes the core where it gives what the library would. Raises ModelFormatError for
    content that is no tokenizer, or that the core does not know when it is asked for.
    """
    if kind not in (None, "native", "tokenizers"):
        raise ValueError(f"kind must be 'native' or 'tokenizers', not {kind!r}")
    if kind != "tokenizers":
        try:
            return NativeTokeniser(content)
        except _Unknown as error:
            if kind == "native":
                raise ModelFormatError(
                    f"the core does not know this tokenizer: {error}", member="tokenizer.json"
                ) from error
    return LibraryTokeniser(content)


class _Unknown(Exception):
    """Says what about a tokenizer.json the core does not know."""


class NativeTokeniser:
    """An uncased BERT WordPiece, in the core."""

    kind: TokeniserKind = "native"

    def __init__(self, content: bytes | str) -> None:
        try:
            text = content.decode("utf-8") if isinstance(content, bytes) else content
            raw = json.loads(text)
            engine, self.around = _native(raw)
        except _Unknown:
            raise
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise _Unknown(f"{type(error).__name__}: {error}") from error
        self.encode = engine.encode


class LibraryTokeniser:
    """Any tokenizer, by the library. Raises ModelFormatError for content that it refuses."""

    kind: TokeniserKind = "tokenizers"

    def __init__(self, content: bytes | str) -> None:
        from tokenizers import Tokenizer

        try:
            text = content.decode("utf-8") if isinstance(content, bytes) else content
            engine = Tokenizer.from_str(text)
        except Exception as error:  # tokenizers raises bare Exception
            raise ModelFormatError(
                f"is not a tokenizer: {error}", member="tokenizer.json"
            ) from error
        engine.no_truncation()
        engine.no_padding()
        engine.encode_special_tokens = True
        self.around = tuple(engine.encode("").ids)
        self._encode = engine.encode

    def encode(self, text: str) -> _LibraryTokens:
        try:
            return _LibraryTokens(self._encode(text, add_special_tokens=False))
        except (TypeError, UnicodeEncodeError):
            if not isinstance(text, str):
                raise
            # A lone surrogate is legal in a str but has no UTF-8. One for one, so offsets hold.
            safe = _SURROGATES.sub("\ufffd", text)
            return _LibraryTokens(self._encode(safe, add_special_tokens=False))


class _LibraryTokens:
    __slots__ = ("_encoding", "_ids")

    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding
        self._ids: list[int] = encoding.ids

    def __len__(self) -> int:
        return len(self._ids)

    def token_to_chars(self, index: int) -> tuple[int, int]:
        span: tuple[int, int] | None = self._encoding.token_to_chars(index)
        assert span is not None  # every token comes from the text
        return span

    def row(self, start: int, stop: int, first: int, last: int) -> npt.NDArray[np.int64]:
        row = np.empty((1, stop - start + 2), np.int64)
        row[0, 0] = first
        row[0, 1:-1] = self._ids[start:stop]
        row[0, -1] = last
        return row


# ---- what the core knows -------------------------------------------------------------------------


def _native(raw: Any) -> tuple[_core.WordPiece, tuple[int, ...]]:
    """Everything that has a say in ids and spans must be what the core was made for, down to keys
    that it has never heard of."""
    _keys(
        raw,
        "the file",
        {"added_tokens", "model", "normalizer", "post_processor", "pre_tokenizer"},
        {"version", "truncation", "padding", "decoder"},
    )
    model = raw["model"]
    _keys(
        model,
        "model",
        {"type", "vocab", "unk_token", "continuing_subword_prefix", "max_input_chars_per_word"},
    )
    _known(model["type"] == "WordPiece", f"model {model['type']!r}")
    _known(model["continuing_subword_prefix"] == _PREFIX, "another prefix than ##")
    max_word = model["max_input_chars_per_word"]
    _known(type(max_word) is int and 0 <= max_word <= _MAX_WORD, "max_input_chars_per_word")
    vocabulary: dict[str, int] = model["vocab"]
    tokens = _by_id(vocabulary)
    _known(model["unk_token"] in vocabulary, "unk_token is not in vocab")
    for added in raw["added_tokens"]:
        # With encode_special_tokens the library takes special tokens in a text for plain text, as
        # the core does with everything.
        plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        token = {"content": added["content"], "id": vocabulary.get(added["content"])}
        _known(added == {**token, "special": True, **plain}, f"added token {added['content']!r}")
    normalizer = dict(raw["normalizer"])
    _known(normalizer.pop("strip_accents") in (None, True), "strip_accents")
    _known(
        normalizer
        == {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "lowercase": True,
        },
        "another normalizer than that of uncased BERT",
    )
    left_out, chunk = _words(raw["pre_tokenizer"])
    engine = _engine(tokens, vocabulary[model["unk_token"]], max_word, chunk, left_out)
    return engine, _around(raw["post_processor"])


# Those in use, by what they are made of. Two models that work together have one vocabulary, and to
# build it takes 15 ms.
_ENGINES: WeakValueDictionary[bytes, _core.WordPiece] = WeakValueDictionary()
_ONE_BUILDS = Lock()


def _engine(
    tokens: list[str], unknown: int, max_word: int, chunk: int, left_out: list[str]
) -> _core.WordPiece:
    # No token holds a lone surrogate.
    content = "\ud800".join([str(unknown), str(max_word), *tokens])
    key = sha256(content.encode("utf-8", "surrogatepass")).digest()
    with _ONE_BUILDS:
        made = _ENGINES.get(key)
        if made is not None and set("".join(left_out)) <= set("".join(tokens)):
            return made.sharing(chunk, left_out)
        engine = _core.WordPiece(tokens, unknown, max_word, chunk, left_out)
        _ENGINES[key] = engine
    return engine


def _by_id(vocabulary: dict[str, int]) -> list[str]:
    ids = list(vocabulary.values())
    _known(set(map(type, ids)) <= {int}, "an id that is no integer")
    if ids == list(range(len(ids))):  # as the library writes it
        tokens = list(vocabulary)
    else:
        _known(sorted(ids) == list(range(len(ids))), "ids with gaps")
        tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    _known(_is_text(tokens), "a token that is no text")
    return tokens


def _is_text(words: list[str]) -> bool:
    """Whether no word holds a lone surrogate."""
    try:
        "".join(words).encode()
    except UnicodeEncodeError:
        return False
    return True


def _words(pre_tokenizer: Any) -> tuple[list[str], int]:
    """What becomes of words after BERT's splitter: those that are left out, and the characters of
    the pieces that the others are cut into, 0 for none."""
    bert = {"type": "BertPreTokenizer"}
    if pre_tokenizer == bert:
        return [], 0
    _keys(pre_tokenizer, "pre_tokenizer", {"type", "pretokenizers"})
    _known(pre_tokenizer["type"] == "Sequence", "another pre_tokenizer than BERT's")
    first, *steps = pre_tokenizer["pretokenizers"] or [None]
    _known(first == bert, "another pre_tokenizer than BERT's")
    left_out = words_of(steps[0]) if steps else None
    if left_out is not None:
        _known(_is_text(left_out), "a word that is no text")
        del steps[0]
    if not steps:
        return left_out or [], 0
    length = steps[0].get("length")
    known = [{"type": "FixedLength", "length": length}]
    _known(steps == known, "a pre_tokenizer after BERT's")
    _known(type(length) is int and 1 <= length < 1 << 32, "FixedLength")
    return left_out or [], int(length)


def _around(processor: Any) -> tuple[int, ...]:
    """The ids that the post-processor puts around an empty text."""
    if processor is None:
        return ()
    _known(processor["type"] == "TemplateProcessing", f"post_processor {processor['type']!r}")
    special = processor["special_tokens"]
    around = []
    for item in processor["single"]:
        if "SpecialToken" in item:
            around.append(special[item["SpecialToken"]["id"]]["ids"])
        else:
            _known(item["Sequence"]["id"] == "A", "a template of a pair")
    ids = tuple(chain.from_iterable(around))
    _known(set(map(type, ids)) <= {int}, "an id that is no integer")
    return ids


def _known(condition: bool, what: str) -> None:
    if not condition:
        raise _Unknown(what)


def _keys(item: Any, name: str, required: set[str], optional: set[str] | None = None) -> None:
    _known(isinstance(item, dict), f"{name} is no object")
    missing = sorted(required - item.keys())
    _known(not missing, f"{name} has no {', '.join(missing)}")
    strange = sorted(item.keys() - required - (optional or set()))
    _known(not strange, f"{name} has {', '.join(strange)}")
