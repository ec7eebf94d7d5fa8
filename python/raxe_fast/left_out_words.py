"""Words that a tokenizer.json leaves out: the step of its pre_tokenizer that says which.

A ``Split`` after BERT's own pre-tokenizer whose expression matches those words alone, and whole,
so that they make no token. The ``tokenizers`` library runs the expression; the core takes the list.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

__all__ = ["split_step", "words_of"]

# To the end of the text, not of a line. (The library's engine; Python's `re` says \Z.)
_START, _END = r"\A(?:", r")\z"
# What both engines read as more than itself. Nothing else is escaped: a backslash before another
# character may mean something to one of them.
_SPECIAL = r"\\.|*+?^$()\[\]{}"
_WORD = re.compile(rf"(?:[^{_SPECIAL}]|\\[{_SPECIAL}])+")
_PATTERN = re.compile(rf"{_WORD.pattern}(?:\|{_WORD.pattern})*")


def split_step(words: Sequence[str]) -> dict[str, Any]:
    """The step that leaves out ``words``, as the normaliser writes them. Raises ValueError for
    none, an empty one, or one that appears twice."""
    if not words or "" in words or len(set(words)) < len(words):
        raise ValueError("words to leave out must be some, different, and not empty")
    escaped = (re.sub(f"[{_SPECIAL}]", r"\\\g<0>", word) for word in words)
    return {
        "type": "Split",
        "pattern": {"Regex": f"{_START}{'|'.join(escaped)}{_END}"},
        "behavior": "Removed",
        "invert": False,
    }


def words_of(step: Any) -> list[str] | None:
    """The words that a step leaves out; None for another step than :func:`split_step` makes."""
    try:
        expression = step["pattern"]["Regex"]
        middle = expression.removeprefix(_START).removesuffix(_END)
        if _PATTERN.fullmatch(middle) is None:
            return None
        # An escaped bar stays: it belongs to its word.
        words = [re.sub(r"\\(.)", r"\1", word) for word in _WORD.findall(middle)]
        return words if step == split_step(words) else None
    except (TypeError, KeyError, AttributeError, ValueError):
        return None
