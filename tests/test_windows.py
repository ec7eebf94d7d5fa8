"""Windows: what they cover, what they say they cover, and what hostile text costs."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raxe_fast.errors import ModelFormatError
from raxe_fast.windows import Window, Windower, bucket_by_length

tokenizers = pytest.importorskip("tokenizers")

MAX_TOKENS, OVERLAP = 12, 4
LIMIT = 20  # characters WordPiece accepts in a word, kept small for short examples


def tokenizer_json() -> str:
    letters = [chr(c) for c in range(33, 127) if not chr(c).isupper()]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello", "world", "##ing"]
    vocabulary += letters + [f"##{c}" for c in letters]
    ids = {token: i for i, token in enumerate(dict.fromkeys(vocabulary))}
    engine = tokenizers.Tokenizer(
        tokenizers.models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=LIMIT)
    )
    engine.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    engine.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    engine.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    engine.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    # What the exporter must not leave in place, and the windower must not obey.
    engine.enable_truncation(8)
    engine.enable_padding(length=16)
    return str(engine.to_str())


TOKENIZER = tokenizer_json()


@pytest.fixture(scope="module")
def windower() -> Windower:
    return Windower(TOKENIZER, max_tokens=MAX_TOKENS, overlap=OVERLAP)


def plain_ids(text: str) -> list[int]:
    """The tokens of a text by the tokenizer alone, without special ones."""
    engine = tokenizers.Tokenizer.from_str(TOKENIZER)
    engine.no_truncation()
    engine.no_padding()
    engine.encode_special_tokens = True
    safe = "".join("\ufffd" if 0xD800 <= ord(c) < 0xE000 else c for c in text)
    return list(engine.encode(safe, add_special_tokens=False).ids)


def inner(window: Window) -> list[int]:
    return window.ids[0, 1:-1].tolist()


texts = st.text(
    alphabet=st.one_of(
        st.sampled_from("abc hello,.! \n\t"),
        st.characters(codec="utf-8"),
        st.sampled_from(["\ud800", "\udfff", "\x00", "é", "\u0301", "漢", "\U0001f600", "\u202e"]),
    ),
    max_size=120,
)


@settings(max_examples=200, deadline=None)
@given(text=texts, max_tokens=st.integers(3, 20), data=st.data())
def test_windows_cover_every_token_once_with_exact_overlaps(text, max_tokens, data):
    overlap = data.draw(st.integers(0, max_tokens - 3))
    found = Windower(TOKENIZER, max_tokens=max_tokens, overlap=overlap).windows(text)
    expected = plain_ids(text)
    rebuilt = inner(found.windows[0])
    for before, window in zip(found.windows, found.windows[1:], strict=False):
        assert inner(before)[len(inner(before)) - overlap :] == inner(window)[:overlap]
        assert len(inner(window)) > overlap  # nothing is encoded that adds no token
        rebuilt += inner(window)[overlap:]
    assert rebuilt == expected
    assert found.tokens == len(expected)
    assert all(len(inner(w)) == max_tokens - 2 for w in found.windows[:-1])
    if len(expected) <= max_tokens - 2:
        assert len(found.windows) == 1
    assert (found.characters_read, found.characters) == (len(text), len(text))
    assert not found.partial


@settings(max_examples=200, deadline=None)
@given(text=texts)
def test_spans_lie_inside_the_text_and_in_order(windower, text):
    found = windower.windows(text).windows
    for window in found:
        assert window.ids.dtype == np.int64 and window.ids.flags.c_contiguous
        assert window.ids[0, 0] == 2 and window.ids[0, -1] == 3
        assert 0 <= window.begin <= window.end <= len(text)
    assert [w.begin for w in found] == sorted(w.begin for w in found)


@settings(max_examples=150, deadline=None)
@given(words=st.lists(st.sampled_from(["hello", "world", "a", "\U0001f600", "漢", ",", "é"])))
def test_the_text_of_a_span_has_the_tokens_of_its_window(windower, words):
    text = " ".join(words)
    for window in windower(text):
        assert plain_ids(text[window.begin : window.end]) == inner(window)


@settings(max_examples=200, deadline=None)
@given(text=texts, max_chars=st.integers(1, 60), max_windows=st.integers(1, 5))
def test_limits_hold_and_are_reported(windower, text, max_chars, max_windows):
    everything = windower.windows(text)
    found = windower.windows(text, max_chars, max_windows)
    assert 1 <= len(found.windows) <= max_windows
    assert found.characters == len(text)
    assert found.characters_read <= min(max_chars, len(text))
    assert found.tokens <= sum(len(inner(w)) for w in found.windows)
    if len(text) <= max_chars and len(everything.windows) <= max_windows:
        assert not found.partial
        assert [w.ids.tolist() for w in found.windows] == [
            w.ids.tolist() for w in everything.windows
        ]
    else:
        assert found.partial


def test_a_long_text_is_read_at_both_ends(windower):
    text = "hello " * 50 + "world"
    found = windower.windows(text, max_chars=40)
    assert found.partial and found.characters_read == 40
    assert found.windows[0].begin == 0
    assert found.windows[-1].end == len(text)
    assert inner(found.windows[-1])[-1] == plain_ids("world")[0]
    # No window joins the two halves.
    assert all(w.end <= 20 or w.begin >= len(text) - 20 for w in found.windows)


def test_too_many_windows_keep_both_ends(windower):
    text = " ".join("abcdefghij"[i % 10] for i in range(200))
    every = windower(text)
    found = windower.windows(text, max_windows=5)
    spans = [(w.begin, w.end) for w in found.windows]
    assert spans == [(w.begin, w.end) for w in [*every[:3], *every[-2:]]]
    places = {i for begin, end in spans for i in range(begin, end)}
    assert found.partial and found.characters_read == len(places)
    assert found.tokens == len([i for i in places if text[i] != " "])


def test_one_window_of_many_is_the_first(windower):
    found = windower.windows("a " * 100, max_windows=1)
    assert [w.begin for w in found.windows] == [0] and found.partial


@pytest.mark.parametrize("text", ["", "   ", "\x00", "\ud800", "\u0301" * 50, "\u200b"])
def test_text_without_tokens_is_one_empty_window(windower, text):
    (window,) = windower(text)
    assert window.ids.tolist() == [[2, 3]]
    assert (window.begin, window.end) == (0, 0)


def test_offsets_are_code_points_of_the_original():
    windower = Windower(TOKENIZER, max_tokens=3, overlap=0)
    text = "\U0001f600 hello \ud83d world e\u0301 \U0001f1e9\U0001f1ea a"
    spans = [text[w.begin : w.end] for w in windower(text)]
    assert spans == ["\U0001f600", "hello", "world", "e", "\U0001f1e9\U0001f1ea", "a"]


def test_special_tokens_in_a_text_are_ordinary_text(windower):
    (window,) = windower("a [SEP] b")
    assert 3 not in inner(window)
    assert len(inner(window)) == 7  # a [ s e p ] b, letter by letter in this vocabulary


def test_the_tokenizers_own_truncation_and_padding_are_ignored(windower):
    assert sum(w.ids.shape[1] - 2 for w in windower("a b c d e f g h i j")) == 10
    assert windower("a")[0].ids.shape == (1, 3)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("x" * 10_000_000, 5), ("ab" * 500_000, 5), ("\u0301" * 1_000_000, 5), ("\u202e" * 10**6, 5),
     ("a\u0301" * 500_000, 5), ("漢" * 10**6, 5), ("\x00" * 10**6, 5)],
)  # fmt: skip
def test_hostile_texts_cost_bounded_time(windower, text, seconds):
    begun = time.perf_counter()
    found = windower.windows(text, max_chars=65_536, max_windows=16)
    assert time.perf_counter() - begun < seconds
    assert len(found.windows) <= 16 and found.partial


def test_special_ids_can_be_given():
    windower = Windower(TOKENIZER, max_tokens=8, overlap=2, cls_id=4, sep_id=0)
    assert windower("a")[0].ids[0, [0, -1]].tolist() == [4, 0]


@pytest.mark.parametrize(("max_tokens", "overlap"), [(2, 0), (8, 6), (8, -1)])
def test_bad_sizes(max_tokens, overlap):
    with pytest.raises(ValueError):
        Windower(TOKENIZER, max_tokens=max_tokens, overlap=overlap)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", json.dumps([1])])
def test_a_bad_tokenizer_is_a_typed_error(content):
    with pytest.raises(ModelFormatError, match=r"tokenizer\.json"):
        Windower(content, max_tokens=8, overlap=2)


@pytest.mark.parametrize("limits", [(0, 1), (1, 0), (-1, None)])
def test_bad_limits(windower, limits):
    with pytest.raises(ValueError):
        windower.windows("a", *limits)


def test_not_a_text(windower):
    with pytest.raises(TypeError):
        windower(b"bytes")


@settings(max_examples=100, deadline=None)
@given(
    lengths=st.lists(st.integers(2, 9), max_size=40),
    batch_size=st.integers(1, 8),
    max_batch_tokens=st.integers(1, 40),
)
def test_buckets_hold_every_window_once(lengths, batch_size, max_batch_tokens):
    windows = [Window(np.full((1, length), i, np.int64), 0, 0) for i, length in enumerate(lengths)]
    blocks = bucket_by_length(windows, batch_size, max_batch_tokens)
    assert sorted(i for b in blocks for i in b.index) == list(range(len(lengths)))
    for block in blocks:
        rows, length = block.ids.shape
        assert rows == len(block.index) <= batch_size
        assert rows == 1 or rows * length <= max_batch_tokens
        assert list(block.index) == sorted(block.index)
        assert block.ids.dtype == np.int64 and block.ids.flags.c_contiguous
        for row, index in zip(block.ids, block.index, strict=True):
            assert row.tolist() == windows[index].ids[0].tolist()


def test_bad_bucket_sizes():
    with pytest.raises(ValueError):
        bucket_by_length([], 0)
