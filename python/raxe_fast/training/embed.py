"""Embeds a corpus through the pieces that scan at run time, one window at a time.

Dynamic quantisation takes its range from the whole input tensor, so a window's embedding depends
on what shares its batch. Training on batches of one is training on what the scanner sees.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from raxe_fast.errors import EncoderError, ModelNotFoundError
from raxe_fast.training.embed_cache import EmbeddingCache, Entry, text_digest
from raxe_fast.training.finetune_output import HEADS_FILE, LinearHeads

if TYPE_CHECKING:
    from raxe_fast.encoder import TokenEncoder

__all__ = ["Embedded", "EncoderFiles", "TextEmbedder", "embed_texts"]

_SHARD_TEXTS = 2000
_SHARD_SECONDS = 60.0
_CHUNK = 8


@dataclass(frozen=True, slots=True)
class EncoderFiles:
    """An exported encoder (encoder.onnx, tokenizer.json, export.json) and how texts are cut."""

    folder: Path
    hidden_size: int
    max_tokens: int
    overlap_tokens: int
    info: dict[str, object]
    # A fine-tuned encoder's linear heads; without them no passage is looked for.
    heads: LinearHeads | None = None
    # What embeds: the package's own kernels where they know the graph, else ONNX Runtime.
    backend: str = "onnxruntime"

    @classmethod
    def open(cls, folder: Path | str) -> EncoderFiles:
        """Reads export.json; windows are as long as the encoder was tuned for (:meth:`cut_into`).

        Raises ModelNotFoundError if a file is missing.
        """
        root = Path(folder)
        for member in ("encoder.onnx", "tokenizer.json", "export.json"):
            if not (root / member).is_file():
                raise ModelNotFoundError("no such file", path=root, member=member)
        info = json.loads((root / "export.json").read_text(encoding="utf-8"))
        tokens = int(info["max_tokens"])
        heads = None
        if (root / HEADS_FILE).is_file():
            heads = LinearHeads.load(root / HEADS_FILE)
        backend = _backend_for(root / "encoder.onnx")
        files = cls(root, int(info["hidden_size"]), tokens, 0, info, heads, backend)
        return files.cut_into(None, None)

    def cut_into(self, max_tokens: int | None, overlap_tokens: int | None) -> EncoderFiles:
        """The same encoder with windows of ``max_tokens`` tokens, special ones included (None: as
        many as it was tuned for), that share ``overlap_tokens`` (None: a quarter of the window).

        Raises ValueError for windows that it cannot read or that leave no room.
        """
        tokens = self.max_tokens if max_tokens is None else max_tokens
        if not 3 <= tokens <= self.max_tokens:
            raise ValueError(f"windows must have 3 to {self.max_tokens} tokens, not {tokens}")
        overlap = tokens // 4 if overlap_tokens is None else overlap_tokens
        if not 0 <= overlap <= tokens - 3:
            raise ValueError(f"windows of {tokens} tokens cannot share {overlap}")
        return replace(self, max_tokens=tokens, overlap_tokens=overlap)

    def open_encoder(self) -> TokenEncoder:
        """The encoder on its backend, with one thread. Raises EncoderError."""
        from raxe_fast.encoder import Encoder
        from raxe_fast.native import NativeEncoder

        model = self.folder / "encoder.onnx"
        return NativeEncoder(model) if self.backend == "native" else Encoder(model, threads=1)

    def key(self) -> dict[str, object]:
        """What an embedding depends on besides the text."""
        key: dict[str, object] = {
            "encoder": hashlib.sha256((self.folder / "encoder.onnx").read_bytes()).hexdigest(),
            "tokenizer": hashlib.sha256((self.folder / "tokenizer.json").read_bytes()).hexdigest(),
            "max_tokens": self.max_tokens,
            "overlap_tokens": self.overlap_tokens,
        }
        if self.backend != "onnxruntime":
            key["backend"] = self.backend
        if self.heads is not None:
            weights = self.heads.evidence_weight.tobytes()
            key["passages"] = hashlib.sha256(weights).hexdigest() + f" {self.heads.evidence_bias}"
        return key


class TextEmbedder:
    """Text -> unit vectors of its windows, by windows.py, encoder.py and the core's pooling."""

    def __init__(self, files: EncoderFiles) -> None:
        from raxe_fast import _core
        from raxe_fast.windows import Windower

        self._pool, self._passage = _core.mean_pool_l2, _core.strongest_passage
        self._heads = files.heads
        self.hidden_size = files.hidden_size
        self._windower = Windower(
            (files.folder / "tokenizer.json").read_bytes(),
            max_tokens=files.max_tokens,
            overlap=files.overlap_tokens,
        )
        self._encoder = files.open_encoder()

    def token_ids(self, text: str) -> list[NDArray[np.int64]]:
        """Token ids of each window, special tokens included."""
        return [window.ids[0] for window in self._windower(text)]

    def vector(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """(hidden,) unit vector of one window."""
        return self.described(ids)[0]

    def described(self, ids: NDArray[np.int64]) -> tuple[NDArray[np.float32], float]:
        """(hidden,) unit vector of one window, and the evidence of its strongest passage (0
        without linear heads)."""
        tokens = self._encoder.encode(ids[None, :])[0]
        evidence = 0.0
        if self._heads is not None:
            weight, bias = self._heads.evidence_weight, self._heads.evidence_bias
            evidence = self._passage(tokens, weight, bias)[0]
        return np.asarray(self._pool(tokens, None)), evidence

    def spans(self, text: str, cap: int | None) -> list[tuple[int, int]]:
        """Code points [begin, end) of the windows that a call would embed."""
        return [(w.begin, w.end) for w in self._windower.windows(text).windows[:cap]]

    def __call__(self, text: str, cap: int | None) -> Entry:
        found = self._windower.windows(text)
        used = found.windows[:cap]
        vectors = np.empty((len(used), self.hidden_size + 1), dtype=np.float32)
        for i, window in enumerate(used):
            vectors[i, :-1], vectors[i, -1] = self.described(window.ids[0])
        return Entry(vectors, len(found.windows), found.tokens)


@dataclass(frozen=True, slots=True)
class Embedded:
    """Windows of many texts: (rows, hidden) vectors, (rows,) evidence of their strongest passages
    (0 without linear heads), (rows,) text numbers in ascending order, and per text its tokens (as
    the scanner counts them) and its windows, embedded or not."""

    vectors: NDArray[np.float32]
    evidence: NDArray[np.float32]
    owner: NDArray[np.int64]
    tokens: NDArray[np.int64]
    windows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.tokens)


def _backend_for(model: Path) -> str:
    """``"native"`` for a graph that the native encoder runs, as models of it will by default."""
    from raxe_fast.native import NativeEncoder

    try:
        NativeEncoder(model)
    except EncoderError:
        return "onnxruntime"
    return "native"


_worker: TextEmbedder | None = None


def _start_worker(files: EncoderFiles) -> None:
    global _worker
    _worker = TextEmbedder(files)


def _work(job: tuple[str, int | None]) -> tuple[bytes, Entry]:
    assert _worker is not None
    text, cap = job
    return text_digest(text), _worker(text, cap)


def _compute(
    files: EncoderFiles, jobs: list[tuple[str, int | None]], processes: int
) -> Iterator[tuple[bytes, Entry]]:
    if processes <= 1 or len(jobs) < 4 * _CHUNK:
        embedder = TextEmbedder(files)
        for text, cap in jobs:
            yield text_digest(text), embedder(text, cap)
        return
    # spawn: ONNX Runtime does not survive a fork of a process that has used it.
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, _start_worker, (files,)) as pool:
        yield from pool.imap_unordered(_work, jobs, chunksize=_CHUNK)


def _fill(
    cache: EmbeddingCache,
    files: EncoderFiles,
    texts: Sequence[str],
    cap: int | None,
    jobs: int,
    title: str,
) -> None:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    missing = {
        digest: text for text in texts if cache.get(digest := text_digest(text), cap) is None
    }
    if not missing:
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        task = progress.add_task(title, total=len(missing))
        shard: list[tuple[bytes, Entry]] = []
        written = time.monotonic()
        for item in _compute(files, [(text, cap) for text in missing.values()], jobs):
            shard.append(item)
            progress.advance(task)
            if len(shard) >= _SHARD_TEXTS or time.monotonic() - written > _SHARD_SECONDS:
                cache.append(shard)
                shard, written = [], time.monotonic()
        cache.append(shard)


def embed_texts(
    texts: Sequence[str],
    files: EncoderFiles,
    cache_dir: Path | str,
    *,
    cap: int | None = None,
    jobs: int = 2,
    title: str = "embed",
) -> Embedded:
    """Embeds texts, at most `cap` windows of each (None: all), reading and filling the cache.

    Raises EncoderError or ModelNotFoundError if the encoder does not work.
    """
    cache = EmbeddingCache(cache_dir, files.key())
    _fill(cache, files, texts, cap, jobs, title)
    entries = []
    for text in texts:
        entry = cache.get(text_digest(text), cap)
        if entry is None:
            raise RuntimeError("the embedding cache changed while it was read")
        entries.append(entry)
    stored = np.array([len(entry.vectors) for entry in entries], dtype=np.int64)
    vectors = np.empty((int(stored.sum()), files.hidden_size + 1), dtype=np.float32)
    start = 0
    for entry in entries:
        vectors[start : start + len(entry.vectors)] = entry.vectors
        start += len(entry.vectors)
    return Embedded(
        vectors=np.ascontiguousarray(vectors[:, :-1]),
        evidence=vectors[:, -1].copy(),
        owner=np.repeat(np.arange(len(entries)), stored),
        tokens=np.array([entry.tokens for entry in entries], dtype=np.int64),
        windows=np.array([entry.total for entry in entries], dtype=np.int64),
    )
