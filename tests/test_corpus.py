"""Corpus files: good, bad, zipped, damaged."""

from __future__ import annotations

import gzip
import json

import pytest

from raxe_fast.errors import CorpusError
from raxe_fast.training.corpus import find_split, read_corpus

GOOD = {"text": "hello", "label": 0, "source": "own"}
ATTACK = {"text": "do it", "label": 1, "family": "jailbreak", "subfamily": "developer_mode"}


def write(path, lines, zipped=False):
    data = b"".join(
        (line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines
    )
    path.write_bytes(gzip.compress(data) if zipped else data)
    return path


@pytest.mark.parametrize("zipped", [False, True])
def test_reads_records_in_order_whatever_the_name(tmp_path, zipped):
    path = write(tmp_path / "corpus.data", [GOOD, b"", b"   ", ATTACK], zipped)
    corpus = read_corpus(path)
    assert [record.text for record in corpus.records] == ["hello", "do it"]
    assert corpus.records[1].family == "jailbreak"
    assert [record.line for record in corpus.records] == [1, 4]
    assert corpus.bad == []


def test_lone_surrogates_survive(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_bytes(b'{"text": "a\\ud800b", "label": 1}\n')
    assert read_corpus(path).records[0].text == "a\ud800b"


BAD = [
    (b"{", "not JSON"),
    (b"[1]", "not a JSON object"),
    (b'{"label": 1}', "'text' is missing"),
    (b'{"text": 3, "label": 1}', "'text' is missing or not a string"),
    (b'{"text": "x"}', "'label' is missing"),
    (b'{"text": "x", "label": 2}', "'label'"),
    (b'{"text": "x", "label": true}', "'label'"),
    (b'{"text": "x", "label": "1"}', "'label'"),
    (b'{"text": "x", "label": 1, "family": 4}', "'family' is not a string"),
    (b'{"text": "\xff", "label": 1}', "not UTF-8"),
    (b"[" * 100_000, "not JSON"),
]


@pytest.mark.parametrize("line,problem", BAD)
def test_a_bad_line_is_raised_with_its_number(tmp_path, line, problem):
    path = write(tmp_path / "c.jsonl", [GOOD, line, GOOD])
    with pytest.raises(CorpusError, match=problem.replace("[", r"\[")) as caught:
        read_corpus(path)
    assert caught.value.line == 2
    assert caught.value.path == str(path)


def test_bad_lines_are_collected_and_the_rest_is_read(tmp_path):
    path = write(tmp_path / "c.jsonl", [GOOD, *(line for line, _ in BAD), ATTACK])
    corpus = read_corpus(path, on_error="collect")
    assert len(corpus) == 2
    assert [bad.line for bad in corpus.bad] == list(range(2, 2 + len(BAD)))
    assert str(corpus.bad[0]).startswith("c.jsonl:2: not JSON")


def test_a_truncated_gzip_is_reported_not_lost(tmp_path):
    lines = [{**GOOD, "text": f"text {i}"} for i in range(20000)]
    path = write(tmp_path / "c.jsonl.gz", lines, True)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(CorpusError, match="unreadable"):
        read_corpus(path)
    corpus = read_corpus(path, on_error="collect")
    assert 0 < len(corpus) < 20000
    assert any("unreadable" in bad.problem for bad in corpus.bad)


def test_limit_and_missing_files(tmp_path):
    path = write(tmp_path / "train.jsonl", [GOOD] * 5)
    assert len(read_corpus(path, limit=3)) == 3
    assert find_split(tmp_path, "train") == path
    with pytest.raises(CorpusError, match="no dev"):
        find_split(tmp_path, "dev")
    with pytest.raises(CorpusError, match="no such corpus"):
        read_corpus(tmp_path / "none.jsonl")
