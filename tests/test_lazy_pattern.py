"""Patterns that are compiled late, against the same ones compiled at once."""

from __future__ import annotations

import importlib
import pkgutil
import re
import subprocess
import sys

import pytest

import raxe_fast
from raxe_fast.lazy_pattern import lazy

METHODS = ("search", "match", "fullmatch", "findall", "finditer", "split")
TEXTS = ["", "Ab1 and b2", "none", "b22\nb3"]


def plain(value: object) -> object:
    """Matches compare by identity; what they found does not."""
    if isinstance(value, re.Match):
        return (value.span(), value.groups())
    return value if isinstance(value, list) or value is None else [plain(v) for v in value]


@pytest.mark.parametrize("method", METHODS)
def test_methods_do_what_those_of_a_compiled_pattern_do(method):
    for pattern, flags in ((r"b(\d)", 0), ("B.", re.IGNORECASE | re.DOTALL)):
        late, early = lazy(pattern, flags), re.compile(pattern, flags)
        assert late.pattern == early.pattern
        for text in TEXTS:
            assert plain(getattr(late, method)(text)) == plain(getattr(early, method)(text))
    assert lazy("b").sub("c", "abb") == "acc" and lazy("b").subn("c", "abb", 1) == ("acb", 1)


def test_what_is_no_method_of_a_pattern_is_missing():
    with pytest.raises(AttributeError, match="serch"):
        lazy("a").serch("a")


def lazy_patterns() -> list[re.Pattern[str]]:
    kind = type(lazy(""))
    found = []
    for module in pkgutil.iter_modules(raxe_fast.__path__):
        if module.name.startswith("decode"):
            names = vars(importlib.import_module(f"raxe_fast.{module.name}"))
            for value in names.values():
                inside = value.values() if isinstance(value, dict) else [value]
                found += [part for part in inside if isinstance(part, kind)]
    return found


def test_every_pattern_of_the_decoders_is_right():
    found = lazy_patterns()
    assert len(found) > 40
    for pattern in found:
        early = re.compile(pattern.pattern, pattern.flags)
        for text in (
            *TEXTS,
            "the of \\u0041 %41 &#65; a.b.c.d.e.f .- -... a\u0430 01000001 SGVsbG8gdGhlcmUh",
        ):
            assert pattern.findall(text) == early.findall(text)


def test_none_is_compiled_by_the_import():
    code = (
        "import re, sys\nseen, old = [], re.compile\n"
        "def noted(*a):\n"
        "    name = sys._getframe(1).f_globals['__name__']\n"
        "    seen.append((name, a[0]))\n"
        "    return old(*a)\n"
        "re.compile = noted\n"
        "import raxe_fast.decode_whole\n"
        "print(*(s for s in seen if s[0].startswith('raxe_fast.decode')), sep='\\n')"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not run.stdout.strip()
