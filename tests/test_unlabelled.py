"""Windows that nobody wrote, against what they are made from."""

from __future__ import annotations

import numpy as np
import pytest

from finetune_fixtures import torch_needed

ROOM, SPECIALS = 10, (101, 102)


def texts_of(*sizes: int):
    """Texts whose tokens say where they stand: 1000 x the text + the place."""
    from raxe_fast.training.finetune_data import Tokens

    return [
        Tokens(np.arange(1000 * number, 1000 * number + size, dtype=np.int32))
        for number, size in enumerate(sizes, start=1)
    ]


def windows_of(sizes: tuple[int, ...], seed: int = 1, step: int = 0, tokens: int = 120_000):
    import torch

    from raxe_fast.training.unlabelled import UnlabelledWindows

    made = UnlabelledWindows(texts_of(*sizes), SPECIALS, ROOM, seed, torch.device("cpu"))
    ids, mask = (part.numpy() for part in made.draw(tokens, step))
    return ids, mask


def bodies(ids, mask):
    """The tokens between the special ones, after a look at these and at the padding."""
    assert ids.shape == mask.shape and ids.shape[1] == ROOM + 2
    found = []
    for row, kept in zip(ids, mask, strict=True):
        size = int(kept.sum())
        assert kept[:size].all() and not kept[size:].any() and not row[size:].any()
        assert row[0] == SPECIALS[0] and row[size - 1] == SPECIALS[1]
        found.append(row[1 : size - 1])
    return found


def runs(body) -> list[int]:
    """Sizes of the stretches that stand in one text in this order."""
    breaks = np.flatnonzero(np.diff(body) != 1)
    edges = [0, *(breaks + 1), len(body)]
    return np.diff(edges).tolist()


@torch_needed
def test_a_third_stays_a_third_is_joined_a_third_has_words_replaced():
    found = bodies(*windows_of((400, 400, 400, 400)))
    assert len(found) == 10_000
    whole = np.mean([len(runs(body)) == 1 for body in found])
    two = np.mean([len(runs(body)) == 2 and min(runs(body)) > 1 for body in found])
    more = np.mean([len(runs(body)) > 2 for body in found])
    # Few replaced words may be none, and a stretch joined at its beginning or end is one.
    assert 1 / 3 < whole < 0.55 and 0.2 < two < 1 / 3 and 0.2 < more < 1 / 3
    assert all(1 <= len(body) <= ROOM for body in found)
    assert 0.5 < np.mean([len(body) == ROOM for body in found]) < 0.85


@torch_needed
def test_every_place_of_every_text_is_read():
    sizes = (3, 25, 1, 60)
    found = bodies(*windows_of(sizes))
    seen = {int(token) for body in found for token in body}
    assert seen == {1000 * n + i for n, size in enumerate(sizes, start=1) for i in range(size)}


@torch_needed
def test_long_texts_are_drawn_by_the_root_of_their_length():
    found = bodies(*windows_of((16, 1600)))
    # What begins a window is of its own text, unless it was joined or replaced.
    first = np.array([body[0] // 1000 for body in found if len(runs(body)) == 1])
    assert 0.07 < np.mean(first == 1) < 0.12  # 1 / 11


@torch_needed
def test_a_step_can_be_drawn_again_and_the_next_is_another():
    first = windows_of((30, 40), step=7)[0]
    assert (first == windows_of((30, 40), step=7)[0]).all()
    assert (first != windows_of((30, 40), step=8)[0]).any()
    assert (first != windows_of((30, 40), seed=2, step=7)[0]).any()


@torch_needed
def test_texts_without_tokens_are_never_drawn():
    found = bodies(*windows_of((0, 12, 0)))
    assert all(len(body) and set(body // 1000) == {2} for body in found)
    with pytest.raises(ValueError, match="no text has a token"):
        windows_of((0, 0))


@torch_needed
def test_so_many_tokens_are_drawn_and_one_window_at_least():
    assert windows_of((30,), tokens=5)[0].shape == (1, ROOM + 2)
    assert windows_of((30,), tokens=1200)[0].shape == (100, ROOM + 2)
