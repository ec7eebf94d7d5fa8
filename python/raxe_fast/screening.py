"""The screening stage: a tiny network says of each window how sure it is that it is harmless.

Windows below a logit that the model stores for each preset are *cleared*: the encoder does not
read them. Screening never condemns: whatever it does not clear is judged by the encoder alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from raxe_fast import _core
from raxe_fast.errors import EncoderError, ModelFormatError, ModelSelfTestError
from raxe_fast.npz import read_npz

if TYPE_CHECKING:
    from raxe_fast.model import Model
    from raxe_fast.windows import Window

__all__ = [
    "EVIDENCE",
    "Screen",
    "ScreeningHeads",
    "decode_screening_heads",
    "open_screen",
    "screening_score",
]

EVIDENCE = ("linear", "passage", "lexical")
# Kernels of pooling sum in different orders; the rest is the same everywhere.
_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class ScreeningHeads:
    """``screening/heads.npz``: heads of the tiny encoder, float32 (H,) on its unit embedding and on
    a token, the weights of :data:`EVIDENCE` and their bias, and for the n texts of the model's
    self-test the evidence (n, 2) of the encoder's two heads, float32."""

    linear_weight: npt.NDArray[np.float32]
    linear_bias: float
    passage_weight: npt.NDArray[np.float32]
    passage_bias: float
    weights: tuple[float, ...]
    bias: float
    selftest: npt.NDArray[np.float32]


def decode_screening_heads(data: bytes, hidden: int, texts: int) -> ScreeningHeads:
    """Decode ``screening/heads.npz`` of an encoder of width ``hidden``, with ``texts`` texts in the
    self-test. Raises ``ValueError`` or ``KeyError`` saying what is wrong."""
    arrays = read_npz(data)

    def array(name: str, kind: type[np.generic], shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
        found = arrays[name]
        if found.dtype != np.dtype(kind) or found.shape != shape:
            raise ValueError(
                f"array {name!r} is {found.dtype} of shape {found.shape}, expected "
                f"{np.dtype(kind)} of shape {shape}"
            )
        if not np.isfinite(found).all():
            raise ValueError(f"array {name!r} holds NaN or infinity")
        return found

    def floats(name: str, *shape: int) -> npt.NDArray[np.float32]:
        return np.ascontiguousarray(array(name, np.float32, shape), dtype=np.float32)

    weights = array("weights", np.float64, (len(EVIDENCE),)).tolist()
    if min(weights) < 0:
        raise ValueError("array 'weights' holds a negative weight")
    return ScreeningHeads(
        linear_weight=floats("linear_weight", hidden),
        linear_bias=float(array("linear_bias", np.float32, ())),
        passage_weight=floats("passage_weight", hidden),
        passage_bias=float(array("passage_bias", np.float32, ())),
        weights=tuple(weights),
        bias=float(array("bias", np.float64, ())),
        selftest=floats("selftest", texts, 2),
    )


def screening_score(logit: float) -> float:
    """The probability of an attack that a logit of screening stands for; dev calibrated it."""
    if logit >= 0:
        return 1.0 / (1.0 + exp(-logit))
    odds = exp(logit)  # 0 far below
    return odds / (1.0 + odds)


class Screen:
    """The screening network of one model; immutable and thread-safe."""

    __slots__ = ("_screener", "core")

    def __init__(self, core: _core.Screener) -> None:
        self.core = core
        self._screener = core.__call__

    def logits(self, windows: Sequence[Window], text: str) -> list[float]:
        """The logit of an attack for each window of a text (of a view: of the view's text); NaN
        where it is not finite."""
        screener = self._screener
        return [screener(window.ids, text, window.begin, window.end) for window in windows]


def open_screen(model: Model) -> Screen | None:
    """The model's screening network, which reproduces the stored self-test; None for a model
    without. Raises ``ModelFormatError`` if its encoder is none or does not fit the model, and
    ``ModelSelfTestError``."""
    spec, heads = model.manifest.screening, model.screening_heads
    if spec is None or heads is None:
        return None
    from raxe_fast.native import NativeEncoder

    def wrong(message: str) -> ModelFormatError:
        return ModelFormatError(message, path=model.path, member=spec.file)

    try:
        encoder = NativeEncoder(model.screening_onnx).core
    except EncoderError as error:
        raise wrong(str(error)) from error
    main = model.manifest.encoder
    for what, found, needed in (
        ("hidden size", encoder.hidden, spec.hidden_size),
        ("number of layers", encoder.layers, spec.layers),
        ("vocabulary", encoder.vocabulary, main.vocab_size),
    ):
        if found != needed:
            raise wrong(f"its {what} is {found}, the manifest says {needed}")
    if encoder.positions < main.max_tokens:
        raise wrong(f"takes {encoder.positions} tokens, the windows have {main.max_tokens}")
    try:
        core = _core.Screener(
            encoder,
            heads.linear_weight,
            heads.linear_bias,
            heads.passage_weight,
            heads.passage_bias,
            list(heads.weights),
            heads.bias,
            # Without a weight the n-grams are not worth their time.
            model.features if heads.weights[2] > 0 else None,
        )
    except ValueError as error:
        raise ModelFormatError(str(error), path=model.path, member=spec.heads) from error
    _check(core, model, spec.file)
    return Screen(core)


def _check(core: _core.Screener, model: Model, file: str) -> None:
    """Compare what the two heads say of the stored texts with what they said."""
    stored = model.selftest
    assert model.screening_heads is not None
    expected = model.screening_heads.selftest
    for index, ids in enumerate(stored.token_ids):
        try:
            found = np.array(core.evidence(ids[np.newaxis, :], "", 0, 0)[:2])
        except ValueError as error:
            raise ModelSelfTestError(
                f"self-test failed: {error}", path=model.path, member=file
            ) from error
        off = np.abs(found - expected[index])
        # The negated form also catches NaN.
        if not (off <= _TOLERANCE * np.maximum(1.0, np.abs(expected[index]))).all():
            raise ModelSelfTestError(
                f"self-test failed: screening is off by {off.max():.3g} on stored text {index}",
                path=model.path,
                member=file,
            )
