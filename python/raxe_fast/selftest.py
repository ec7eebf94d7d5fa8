"""Opening a model's encoder, and: does the model reproduce what was stored when it was built?

The self-test catches what hashes cannot: a damaged build, a broken ONNX Runtime, weights that
were never loaded and score every text alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from raxe_fast import _core
from raxe_fast.errors import EncoderError, ModelFormatError, ModelSelfTestError

if TYPE_CHECKING:
    from raxe_fast.encoder import Backend, TokenEncoder
    from raxe_fast.model import Model
    from raxe_fast.parts import SelfTest
    from raxe_fast.windows import Windower

__all__ = [
    "FOREST_TOLERANCE",
    "MIN_COSINE",
    "check_encoder",
    "check_forests",
    "open_encoder",
    "open_windower",
]

FOREST_TOLERANCE = 1e-6
# INT8 kernels differ between instruction sets (7-bit weights keep them close), so not 1.
MIN_COSINE = 0.98


def check_forests(
    stored: SelfTest, forests: Mapping[str, _core.Forest], files: Mapping[str, str], path: str
) -> None:
    """Forest outputs on the stored rows must equal the stored ones within 1e-6.

    Raises ``ModelSelfTestError`` naming the head's file.
    """
    for name, forest in forests.items():
        expected = getattr(stored, name)
        rows = np.ascontiguousarray(stored.rows[:, : forest.n_features])
        worst = float(np.abs(forest.predict(rows) - expected).max())
        if not worst <= FOREST_TOLERANCE:
            raise ModelSelfTestError(
                f"self-test failed: {forest.kind} forest is off by {worst:.3g} on stored "
                f"embeddings, at most {FOREST_TOLERANCE:g} allowed",
                path=path,
                member=files[name],
            )


def open_encoder(
    model: Model,
    *,
    threads: int = 1,
    cpus: Sequence[int] | None = None,
    backend: Backend = "auto",
) -> TokenEncoder:
    """The model's encoder. ``"auto"`` is the backend that the model was made for; ONNX Runtime
    where that is native and more than one thread is asked for.

    Raises ``ModelFormatError`` if it is none, not the manifest's, or not for this backend, and
    ``ValueError`` for bad ``threads``, ``cpus`` or ``backend``.
    """
    spec = model.manifest.encoder
    if backend == "auto":
        backend = "native" if spec.backend == "native" and threads == 1 else "onnxruntime"
    encoder: TokenEncoder
    try:
        if backend == "native":
            from raxe_fast.native import NativeEncoder

            encoder = NativeEncoder(model.encoder_onnx, threads=threads, cpus=cpus)
        elif backend == "onnxruntime":
            from raxe_fast.encoder import Encoder

            encoder = Encoder(model.encoder_onnx, threads=threads, cpus=cpus)
        else:
            raise ValueError(f"backend must be 'auto', 'onnxruntime' or 'native', not {backend!r}")
    except EncoderError as error:
        raise ModelFormatError(str(error), path=model.path, member=spec.file) from error
    if encoder.hidden_size != spec.hidden_size:
        raise ModelFormatError(
            f"hidden size is {encoder.hidden_size}, the manifest says {spec.hidden_size}",
            path=model.path,
            member=spec.file,
        )
    if encoder.max_tokens is not None and encoder.max_tokens < spec.max_tokens:
        raise ModelFormatError(
            f"takes {encoder.max_tokens} tokens, the manifest says {spec.max_tokens}",
            path=model.path,
            member=spec.file,
        )
    return encoder


def open_windower(model: Model) -> Windower:
    """The model's tokeniser. Raises ``ModelFormatError`` if it is none."""
    from raxe_fast.windows import Windower

    spec = model.manifest.encoder
    try:
        return Windower(
            model.tokenizer_json,
            max_tokens=spec.max_tokens,
            overlap=spec.overlap_tokens,
            cls_id=spec.cls_id,
            sep_id=spec.sep_id,
        )
    except ModelFormatError as error:
        raise ModelFormatError(error.message, path=model.path, member="tokenizer.json") from error


def check_encoder(
    stored: SelfTest, encoder: TokenEncoder, file: str, path: str, limit: int | None = None
) -> float:
    """Lowest cosine of pooled encoder output to the stored embedding, over ``limit`` texts.

    Raises ``ModelSelfTestError`` if it is below :data:`MIN_COSINE` or the encoder fails.
    """
    lowest = 1.0
    for index, ids in enumerate(stored.token_ids[:limit]):
        try:
            tokens = encoder.encode(ids[np.newaxis, :])
        except EncoderError as error:
            raise ModelSelfTestError(
                f"self-test failed: {error}", path=path, member=file
            ) from error
        if tokens.shape != (1, len(ids), stored.embeddings.shape[1]):
            raise ModelSelfTestError(
                f"self-test failed: encoder output has shape {tokens.shape}, expected "
                f"{(1, len(ids), stored.embeddings.shape[1])}",
                path=path,
                member=file,
            )
        pooled = _core.mean_pool_l2(tokens[0], None)
        cosine = float(pooled @ stored.embeddings[index])
        # The negated form also catches NaN.
        if not cosine >= MIN_COSINE:
            raise ModelSelfTestError(
                f"self-test failed: embedding of stored text {index} has cosine {cosine:.4f} to "
                f"the stored one, at least {MIN_COSINE} expected",
                path=path,
                member=file,
            )
        lowest = min(lowest, cosine)
    return lowest
