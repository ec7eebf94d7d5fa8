"""The on-disk cache of embeddings: append-only shards, so a killed run loses at most one shard.

One folder per (encoder file, windowing): its name is a hash of both, so embeddings of another
encoder can never be mistaken for these. A shard is two files, ``<name>.vectors.npy`` (windows,
columns) float32 and ``<name>.index.npy``; the index is written last and by rename, so a shard
without an index is unfinished and ignored.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["EmbeddingCache", "Entry", "text_digest"]

_INDEX = np.dtype([("digest", "V16"), ("stored", "<i8"), ("total", "<i8"), ("tokens", "<i8")])


@dataclass(frozen=True, slots=True)
class Entry:
    """One text: (stored, columns) vectors of its first windows, of `total` in all, and its tokens.

    `tokens` are those of the text, special tokens excluded and overlaps counted once.
    """

    vectors: NDArray[np.float32]
    total: int
    tokens: int


def text_digest(text: str) -> bytes:
    """16 bytes that stand for a text; lone surrogates are legal."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16]


class EmbeddingCache:
    """Lookup and append. Several processes may append to one folder at a time."""

    def __init__(self, root: Path | str, key: Mapping[str, object]) -> None:
        canonical = json.dumps(dict(key), sort_keys=True)
        name = hashlib.sha256(canonical.encode()).hexdigest()[:16]
        self.folder = Path(root) / name
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "key.json").write_text(canonical + "\n", encoding="utf-8")
        self._where: dict[bytes, tuple[NDArray[np.float32], int, int, int, int]] = {}
        self._shards = 0
        for index in sorted(self.folder.glob("*.index.npy")):
            self._load(index)

    def __len__(self) -> int:
        return len(self._where)

    def _load(self, index: Path) -> None:
        rows = np.load(index, allow_pickle=False)
        vectors = np.load(
            index.with_name(index.name.replace(".index.", ".vectors.")),
            mmap_mode="r",
            allow_pickle=False,
        )
        start = 0
        for row in rows:
            stored = int(row["stored"])
            digest = row["digest"].tobytes()
            known = self._where.get(digest)
            if known is None or known[2] < stored:
                where = (vectors, start, stored, int(row["total"]), int(row["tokens"]))
                self._where[digest] = where
            start += stored

    def get(self, digest: bytes, cap: int | None) -> Entry | None:
        """The entry, cut to `cap` windows; None if not here or here with fewer windows."""
        found = self._where.get(digest)
        if found is None:
            return None
        vectors, start, stored, total, tokens = found
        wanted = total if cap is None else min(cap, total)
        if stored < wanted:
            return None
        return Entry(vectors[start : start + wanted], total, tokens)

    def append(self, entries: Iterable[tuple[bytes, Entry]]) -> None:
        """Writes one shard and makes it available to `get`."""
        items = list(entries)
        if not items:
            return
        rows = np.zeros(len(items), dtype=_INDEX)
        for i, (digest, entry) in enumerate(items):
            rows[i] = (np.void(digest), len(entry.vectors), entry.total, entry.tokens)
        name = f"{time.time_ns():020d}-{os.getpid()}-{self._shards:06d}"
        self._shards += 1
        vectors = np.concatenate([entry.vectors for _, entry in items], axis=0)
        self._write(self.folder / f"{name}.vectors.npy", vectors)
        index = self.folder / f"{name}.index.npy"
        self._write(index, rows)
        self._load(index)

    @staticmethod
    def _write(path: Path, array: NDArray[np.generic]) -> None:
        unfinished = path.with_suffix(".part")
        with unfinished.open("wb") as stream:
            np.save(stream, array, allow_pickle=False)
        unfinished.replace(path)
