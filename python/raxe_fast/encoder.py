"""Encoders as scanners see them, and the one that runs an exported encoder with ONNX Runtime.

Threads and CPUs are used only as asked for.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from raxe_fast.errors import EncoderError

__all__ = ["Backend", "Encoder", "TokenEncoder", "read_model"]

Backend = Literal["auto", "onnxruntime", "native"]
INPUT = "input_ids"
OUTPUT = "token_embeddings"
_UNNAMED = "the encoder"
_LOG_ERRORS = 3


class TokenEncoder(ABC):
    """Token ids to token embeddings, whatever computes them.

    An encoder never changes after construction and may be called from several threads at once.
    Raises ValueError for bad ``threads`` or ``cpus``.
    """

    __slots__ = ("_cpus", "_hidden", "_max_tokens", "_threads")

    _hidden: int
    _max_tokens: int | None

    def __init__(self, threads: int, cpus: Sequence[int] | None) -> None:
        if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
            raise ValueError(f"threads must be a positive integer, not {threads!r}")
        self._threads = threads
        self._cpus = None if cpus is None else _checked_cpus(cpus, threads)

    @property
    def hidden_size(self) -> int:
        """Width H of a token embedding."""
        return self._hidden

    @property
    def max_tokens(self) -> int | None:
        """Most tokens a text may have, [CLS] and [SEP] included; None where the model does not
        say."""
        return self._max_tokens

    @property
    def threads(self) -> int:
        return self._threads

    @property
    def cpus(self) -> tuple[int, ...] | None:
        return self._cpus

    def encode(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Embed a batch of texts of equal token count.

        ``ids`` is int64 (B, S), B and S at least 1, special tokens included and nothing padded:
        there is no mask. Returns a new C-contiguous float32 (B, S, H).

        Raises EncoderError for another dtype or shape, ids outside the vocabulary, more than
        ``max_tokens`` tokens, or a failure of what runs the encoder.
        """
        if not isinstance(ids, np.ndarray) or ids.dtype != np.int64 or ids.ndim != 2:
            raise EncoderError(f"expected int64 ids of shape (batch, tokens), got {_describe(ids)}")
        if ids.size == 0:
            raise EncoderError(f"there is nothing to encode in ids of shape {ids.shape}")
        if self._max_tokens is not None and ids.shape[1] > self._max_tokens:
            raise EncoderError(f"{ids.shape[1]} tokens; this encoder takes {self._max_tokens}")
        if int(ids.min()) < 0:  # ONNX would count it from the end of the vocabulary
            raise EncoderError(f"token id {int(ids.min())} is negative")
        try:
            return self._run(ids)
        except Exception as error:  # ONNX Runtime's own classes derive from Exception directly
            raise EncoderError(f"encoding ids of shape {ids.shape} failed: {error}") from error

    @abstractmethod
    def _run(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """:meth:`encode` for ids of good shape; may raise anything for bad ones."""

    def warm_up(self, lengths: Sequence[int] = (16, 64)) -> None:
        """Encode once at each token count, so that the first real text finds memory allocated and
        code paged in. Raises EncoderError as :meth:`encode`."""
        for length in lengths:
            shorter = length if self._max_tokens is None else min(length, self._max_tokens)
            self.encode(np.zeros((1, shorter), np.int64))

    @contextmanager
    def pinned(self) -> Iterator[None]:
        """Pin the calling thread to ``cpus[0]`` inside the block and restore its CPUs after it.

        Does nothing where the encoder was made without ``cpus``. Raises EncoderError where the
        system cannot pin threads or refuses the CPU.
        """
        if self._cpus is None:
            yield
            return
        try:
            before = os.sched_getaffinity(0)
            os.sched_setaffinity(0, {self._cpus[0]})
        except (AttributeError, OSError) as error:
            raise EncoderError(f"cannot pin to CPU {self._cpus[0]}: {error}") from error
        try:
            yield
        finally:
            os.sched_setaffinity(0, before)


class Encoder(TokenEncoder):
    """An encoder that ONNX Runtime runs.

    ``model`` is the path of an exported encoder.onnx or its bytes. ``threads`` is the whole
    number of threads that work on one call, the caller included: with 1 there is no pool at all.
    ``cpus`` names one CPU per thread. The pool's ``threads - 1`` workers are pinned to
    ``cpus[1:]`` for the life of the session; the calling thread belongs to the caller and is only
    pinned, to ``cpus[0]``, inside ``with encoder.pinned():``. Without ``cpus`` nothing is pinned.

    With INT8 encoders the activations are quantised over the whole batch, so the last digits of a
    text's embeddings depend on the other texts of its batch.

    Raises EncoderError where the model cannot be loaded or is not such an encoder, ValueError for
    bad ``threads`` or ``cpus``.
    """

    __slots__ = ("_outputs", "_session_run")

    def __init__(
        self,
        model: str | Path | bytes,
        *,
        threads: int = 1,
        cpus: Sequence[int] | None = None,
    ) -> None:
        super().__init__(threads, cpus)
        session = _open_session(model, threads, self._cpus)
        self._hidden, self._max_tokens = _check_interface(session)
        self._session_run = session.run
        self._outputs = [OUTPUT]

    def _run(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        result: npt.NDArray[np.float32] = self._session_run(self._outputs, {INPUT: ids})[0]
        return result


def read_model(model: str | Path | bytes) -> tuple[str, bytes]:
    """What messages call a model, and its bytes. Raises EncoderError if it cannot be read."""
    if isinstance(model, bytes):
        return _UNNAMED, model
    name = os.fspath(model)
    try:
        return name, Path(name).read_bytes()
    except FileNotFoundError:
        raise EncoderError(f"{name}: there is no such file") from None
    except OSError as error:
        raise EncoderError(f"{name}: cannot be read: {error.strerror or error}") from error


def _checked_cpus(cpus: Sequence[int], threads: int) -> tuple[int, ...]:
    chosen = tuple(cpus)
    if any(isinstance(cpu, bool) or not isinstance(cpu, int) or cpu < 0 for cpu in chosen):
        raise ValueError(f"cpus must be CPU numbers counted from 0, not {chosen!r}")
    if len(chosen) != threads or len(set(chosen)) != threads:
        raise ValueError(f"cpus must name {threads} different CPUs, one per thread: {chosen!r}")
    # A session only logs that it could not pin a worker, so ask here.
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(chosen)
    outside = sorted(set(chosen) - allowed)
    if outside:
        raise ValueError(f"this process may not run on CPU {', '.join(map(str, outside))}")
    return chosen


def _open_session(model: str | Path | bytes, threads: int, cpus: tuple[int, ...] | None) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = _LOG_ERRORS
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    # Every text has its own shape, so a plan of memory per shape would only pile up.
    options.enable_mem_pattern = False
    if threads > 1:
        # Idle workers that spin burn the CPU quota of whoever shares the machine.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if cpus is not None:
            # ONNX Runtime counts CPUs from 1 and never pins the calling thread.
            groups = ";".join(str(cpu + 1) for cpu in cpus[1:])
            options.add_session_config_entry("session.intra_op_thread_affinities", groups)
    if isinstance(model, bytes):
        source: str | bytes = model
        name = _UNNAMED
    else:
        source = name = os.fspath(model)
        if not Path(name).is_file():
            raise EncoderError(f"{name}: there is no such file")
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own classes derive from Exception directly
        raise EncoderError(f"{name}: cannot be loaded: {error}") from error


def _check_interface(session: Any) -> tuple[int, int | None]:
    inputs = [(value.name, value.type, len(value.shape)) for value in session.get_inputs()]
    outputs = [(value.name, value.type, len(value.shape)) for value in session.get_outputs()]
    if inputs != [(INPUT, "tensor(int64)", 2)] or outputs != [(OUTPUT, "tensor(float)", 3)]:
        raise EncoderError(
            f"not an encoder: expected int64 {INPUT} (batch, sequence) and float32 {OUTPUT} "
            f"(batch, sequence, hidden), found {inputs} and {outputs}"
        )
    hidden = session.get_outputs()[0].shape[2]
    if not isinstance(hidden, int):
        raise EncoderError("not an encoder: its hidden size is not fixed")
    limit = session.get_modelmeta().custom_metadata_map.get("max_positions", "")
    return hidden, int(limit) if limit.isdecimal() else None


def _describe(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} of shape {value.shape}"
    return type(value).__name__
