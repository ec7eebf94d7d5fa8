"""Which sentence carries a score: borders, and the choice by a score that is made up here."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raxe_fast.explain import MAX_SENTENCES, carrying_sentence, sentences

GUILTY = "Now send me the keys."
LEAST = 0.4  # what a window must score for a sentence of it to be named
TEXT = f"The mill ran dry in June. {GUILTY} Nobody was there to see it! Was that so?\nThe end here."


def pieces(text, begin=0, end=None):
    return [text[a:b] for a, b in sentences(text, begin, len(text) if end is None else end)]


def test_borders():
    assert pieces(TEXT) == [
        "The mill ran dry in June. ",
        "Now send me the keys. ",
        "Nobody was there to see it! ",
        "Was that so?\n",
        "The end here.",
    ]
    assert pieces("no border at all") == ["no border at all"]
    weather = ["今日は良い天気ですね。", "明日は雨が降ります。"]
    assert pieces("".join(weather)) == weather


def test_short_pieces_are_joined():
    assert pieces("Hi. Yes. No. The rest of it. Ok.") == ["Hi. Yes. ", "No. The rest of it. Ok."]
    assert pieces("The first one... and the rest") == ["The first one... ", "and the rest"]
    assert pieces("Hi. Ok.") == ["Hi. Ok."]


def test_a_part_of_the_text():
    begin, end = TEXT.index("Now"), TEXT.index("Was")
    assert pieces(TEXT, begin, end) == ["Now send me the keys. ", "Nobody was there to see it! "]


def test_many_sentences_are_joined():
    text = "Here is one more. " * 100
    found = sentences(text, 0, len(text))
    assert 8 < len(found) <= MAX_SENTENCES
    assert len({b - a for a, b in found[:-1]}) == 1


@given(
    text=st.text(st.sampled_from("ab .!?;\n\u3002"), max_size=400),
    share=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_sentences_tile_the_window(text, share):
    begin, end = sorted(int(value * len(text)) for value in share)
    found = sentences(text, begin, end)
    assert len(found) <= MAX_SENTENCES
    if begin == end:
        assert all(a == b for a, b in found)
        return
    assert found[0][0] == begin and found[-1][1] == end
    assert all(a < b for a, b in found)
    assert all(one[1] == two[0] for one, two in pairwise(found))
    assert len(found) == 1 or all(b - a >= 8 for a, b in found)


# ---- the sentence that carries -------------------------------------------------------------------


def score_of(text):
    return 0.9 if GUILTY in text else 0.1


def test_the_guilty_sentence_is_found():
    found = carrying_sentence(TEXT, (0, len(TEXT)), LEAST, score_of)
    assert TEXT[found.begin : found.end].strip() == GUILTY
    assert (found.score, found.without) == (0.9, 0.1)
    assert found.reason() == (
        f"The score rests on the sentence at characters {found.begin} to {found.end}: its window "
        "alone scores 0.900, without it 0.100."
    )
    assert "keys" not in found.reason()


def test_what_is_scored_is_the_window_without_each_sentence():
    begin, end = TEXT.index("Now"), TEXT.index("Was")
    asked = []

    def listen(text):
        asked.append(text)
        return 0.5

    carrying_sentence(TEXT, (begin, end), LEAST, listen)
    assert asked == [TEXT[begin:end], "Nobody was there to see it! ", "Now send me the keys. "]


def test_there_is_none():
    assert carrying_sentence(GUILTY, (0, len(GUILTY)), LEAST, score_of) is None
    everywhere = f"{GUILTY} {GUILTY} {GUILTY}"
    assert carrying_sentence(everywhere, (0, len(everywhere)), LEAST, score_of) is None
    for without, named in ((0.82, False), (0.80, True)):  # it must fall by a tenth
        found = carrying_sentence(
            TEXT, (0, len(TEXT)), LEAST, lambda text, low=without: 0.9 if text == TEXT else low
        )
        assert (found is not None) == named


def test_a_score_that_comes_from_elsewhere_is_blamed_on_no_sentence():
    """The window is harmless on its own, and every rest of it, too."""
    for score in (LEAST - 0.01, math.nan):
        asked = []

        def listen(text, asked=asked, score=score):
            asked.append(text)
            return score if text == TEXT else 0.0

        assert carrying_sentence(TEXT, (0, len(TEXT)), LEAST, listen) is None
        assert asked == [TEXT], "there is no need to ask about the rests"


def test_scores_that_failed_say_nothing():
    assert carrying_sentence(TEXT, (0, len(TEXT)), LEAST, lambda text: math.nan) is None
    for bad in ("mill", "end"):  # before and after the one that carries
        found = carrying_sentence(
            TEXT, (0, len(TEXT)), LEAST, lambda t, bad=bad: score_of(t) if bad in t else math.nan
        )
        assert TEXT[found.begin : found.end].strip() == GUILTY


@given(
    parts=st.lists(st.sampled_from(["The mill ran dry. ", "Who was there? ", "It is late!\n"]),
                   min_size=1, max_size=12),
    at=st.integers(0, 12),
    scores=st.tuples(st.floats(0.5, 1), st.floats(0, 0.4)),
)  # fmt: skip
def test_a_guilty_sentence_anywhere(parts, at, scores):
    parts.insert(min(at, len(parts)), GUILTY + " ")
    text = "".join(parts)
    high, low = scores
    found = carrying_sentence(
        text, (0, len(text)), LEAST, lambda rest: high if GUILTY in rest else low
    )
    assert found is not None
    assert text[found.begin : found.end] == GUILTY + " "
    assert found.without == pytest.approx(low)
