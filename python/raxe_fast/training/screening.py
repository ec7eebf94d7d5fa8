"""Fits a screening network: heads, calibration and thresholds of a tiny student.

The weights of the student's evidence are fitted on training texts that it was not tuned on, and
dev shifts and scales their sum into a logit of an attack. What may be cleared is chosen on dev for
each preset, against the same scanner without screening: see screening_choice.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from raxe_fast import _core
from raxe_fast.decode_whole import parts_of
from raxe_fast.errors import EncoderError, ModelFormatError
from raxe_fast.model import Model, load_model
from raxe_fast.native import NativeEncoder
from raxe_fast.policy import PRESETS, Policy
from raxe_fast.reader import windows_of
from raxe_fast.screening import EVIDENCE
from raxe_fast.selftest import open_windower
from raxe_fast.training.calibrate import INPUTS, fit_calibration, fit_stack, worst_rows
from raxe_fast.training.corpus import Record
from raxe_fast.training.embed import EncoderFiles
from raxe_fast.training.finetune_output import LinearHeads
from raxe_fast.training.folds import FINETUNE_INFO, Holdout
from raxe_fast.training.metrics import Floats, Ints
from raxe_fast.training.package import SELF_TEST_TEXTS
from raxe_fast.training.screening_choice import (
    RULES_SPEAK,
    DevText,
    ScreeningOptions,
    choose_clear_below,
    disguised_losses,
    preset_report,
    screening_losses,
)
from raxe_fast.training.screening_harden import attempts, grouped
from raxe_fast.training.train_data import prepare_encoder
from raxe_fast.windows import Window, Windower

__all__ = ["ENCODER_MEMBER", "HEADS_MEMBER", "ScreeningOptions", "fit_screening"]

ENCODER_MEMBER = "screening/encoder.onnx"
HEADS_MEMBER = "screening/heads.npz"
_MAX_CHARS = 65_536  # as scanners read by default
_NO_LIMIT = 1 << 20
_TRIGGERED = 1000.0  # to an attacker worse than any logit: nothing is cleared then
_ALL_SEEN = "the student was tuned on every training text: nothing to fit its heads on"
_NO_OWNERS = np.zeros(0, dtype=np.uint32)
_T = TypeVar("_T")


def fit_screening(
    folder: Path,
    student: Path | str,
    train: Sequence[Record],
    dev: Sequence[Record],
    work: Path,
    *,
    main_holdout: Holdout | None = None,
    ngrams: bool = True,
    options: ScreeningOptions | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Writes the screening members of ``student``, a directory of write_output, into the complete
    model ``folder`` (without screening so far); its manifest is left to the caller. Returns the
    manifest's section and the report.

    ``main_holdout``: what the model's own encoder has not seen, where that is known: its n-grams
    have learnt from the rest, and serve as evidence only if the student's hold-out is the same.
    ``ngrams`` False: they have learnt from all (``TrainOptions.new_corpus``) and never serve.

    Raises ModelFormatError for a student without heads or with another tokenizer, ValueError where
    no training text is left that it was not tuned on or a class is missing, EncoderError.
    """
    options = options or ScreeningOptions()
    model = load_model(folder, forest="packed")
    files = prepare_encoder(str(student), work, "int8")
    if files.heads is None:
        raise ModelFormatError("has no linear heads: not a fine-tuned encoder", path=student)
    windower = open_windower(model)
    _check_tokenizer(files, windower, model, student)
    data = (files.folder / "encoder.onnx").read_bytes()
    try:
        encoder = NativeEncoder(data).core
    except EncoderError as error:
        raise ModelFormatError(str(error), path=student) from error
    holdout = _holdout(student)
    lexical = ngrams and model.features is not None and main_holdout in (None, holdout)
    screener = _screener(encoder, files.heads, model, (1.0, 1.0, float(lexical)), 0.0)

    unseen = [record for record in train if holdout is None or holdout.contains(record)]
    if len(unseen) > options.fit_texts:
        chosen = np.random.default_rng(1).choice(len(unseen), options.fit_texts, replace=False)
        unseen = [unseen[i] for i in np.sort(chosen).tolist()]
    if not unseen:
        raise ValueError(_ALL_SEEN)

    def described(records: Sequence[Record], cap: int | None) -> tuple[Floats, Ints]:
        return _evidence(screener, windower, records, cap, options.jobs)

    evidence, owner = described(unseen, options.window_cap)
    stack = fit_stack(evidence, owner, _labels(unseen))
    evidence, owner = described(dev, None)
    worst = worst_rows(evidence @ np.array(stack), owner)
    labels = _labels(dev)
    fit = fit_calibration(evidence[worst], labels[owner[worst]], stack=stack)
    first = INPUTS.index(EVIDENCE[0])
    weights = fit.weights[first : first + len(EVIDENCE)]

    (folder / ENCODER_MEMBER).parent.mkdir(exist_ok=True)
    (folder / ENCODER_MEMBER).write_bytes(data)
    _write_heads(folder / HEADS_MEMBER, files.heads, screener, model, weights, fit.bias)
    section: dict[str, Any] = {
        "file": ENCODER_MEMBER,
        "heads": HEADS_MEMBER,
        "hidden_size": encoder.hidden,
        "layers": encoder.layers,
        "max_recall_loss": options.max_recall_loss,
        "max_warn_loss": options.max_warn_loss,
        **({"tuned": {"holdout": holdout.to_dict()}} if holdout is not None else {}),
    }
    final = _screener(encoder, files.heads, model, weights, fit.bias)
    texts = _dev_texts(folder, model, final, windower, dev, options)
    disguised = _disguised(folder, model, final, windower, dev, options) if options.harden else {}
    thresholds = model.manifest.thresholds
    section["presets"] = {}
    for name in PRESETS:
        block, warn = thresholds[name]
        below = choose_clear_below(texts, block, warn, options, disguised)
        recall_loss, warn_loss = screening_losses(texts, below, block, warn)
        section["presets"][name] = {
            "clear_below": below,
            "recall_loss": recall_loss,
            "warn_loss": warn_loss,
        }
    report = {
        "student": {
            "hidden_size": encoder.hidden,
            "layers": encoder.layers,
            "bytes": len(data),
            "holdout": None if holdout is None else holdout.to_dict(),
        },
        "fitted_on": len(unseen),
        "weights": dict(zip(EVIDENCE, weights, strict=True)),
        "bias": fit.bias,
        "limits": {
            "recall_loss": options.max_recall_loss,
            "warn_loss": options.max_warn_loss,
            "disguised_loss": options.max_disguised_loss,
        },
        "disguised_attacks": {name: len(groups) for name, groups in disguised.items()},
        "presets": {
            name: {
                **item,
                **preset_report(texts, item["clear_below"], *thresholds[name]),
                "disguised": disguised_losses(disguised, item["clear_below"], thresholds[name][0]),
            }
            for name, item in section["presets"].items()
        },
    }
    return section, report


def _labels(records: Sequence[Record]) -> Ints:
    return np.array([record.label for record in records], dtype=np.int64)


def _check_tokenizer(
    files: EncoderFiles, windower: Windower, model: Model, student: Path | str
) -> None:
    """The student must read the very ids that the model's tokenizer makes."""
    spec = model.manifest.encoder
    own = Windower(
        (files.folder / "tokenizer.json").read_bytes(),
        max_tokens=spec.max_tokens,
        overlap=spec.overlap_tokens,
    )
    same = all(
        [window.ids.tolist() for window in own(text)]
        == [window.ids.tolist() for window in windower(text)]
        for text in SELF_TEST_TEXTS
    )
    if not same or files.info["vocab_size"] != spec.vocab_size:
        raise ModelFormatError("its tokenizer is not that of the model", path=student)


def _holdout(student: Path | str) -> Holdout | None:
    """What a student has not seen; None: it was not tuned here. ValueError if it has seen all."""
    if not (Path(student) / FINETUNE_INFO).is_file():
        return None
    holdout = Holdout.read(student)
    if holdout.fold is None:
        raise ValueError(_ALL_SEEN)
    return holdout


def _screener(
    encoder: _core.NativeEncoder,
    heads: LinearHeads,
    model: Model,
    weights: Sequence[float],
    bias: float,
) -> _core.Screener:
    return _core.Screener(
        encoder,
        _scaled(heads),
        heads.binary_bias,
        np.ascontiguousarray(heads.evidence_weight, dtype=np.float32),
        heads.evidence_bias,
        list(weights),
        bias,
        model.features if weights[2] > 0 else None,
    )


def _scaled(heads: LinearHeads) -> NDArray[np.float32]:
    return np.ascontiguousarray(np.float32(heads.scale) * heads.binary_weight, dtype=np.float32)


def _parts(windower: Windower, text: str) -> list[tuple[Window, str]]:
    """The windows of a text and of its views as scanners see them, with the text of each."""
    read = windows_of(parts_of(text, _MAX_CHARS), text, windower, _MAX_CHARS)
    return [(window, said) for windows, said in read for window in windows]


def _map(work: Callable[[Record], _T], records: Sequence[Record], jobs: int) -> list[_T]:
    """The core and the encoder release the GIL."""
    if jobs <= 1:
        return [work(record) for record in records]
    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(work, records))


def _evidence(
    screener: _core.Screener,
    windower: Windower,
    records: Sequence[Record],
    cap: int | None,
    jobs: int,
) -> tuple[Floats, Ints]:
    """(windows, INPUTS) evidence, zeros but for EVIDENCE, and (windows,) record numbers."""
    first = INPUTS.index(EVIDENCE[0])

    def described(record: Record) -> list[tuple[float, float, float]]:
        return [
            screener.evidence(window.ids, text, window.begin, window.end)
            for window, text in _parts(windower, record.text)[:cap]
        ]

    found = _map(described, records, jobs)
    owner = np.repeat(np.arange(len(records)), [len(rows) for rows in found])
    evidence = np.zeros((len(owner), len(INPUTS)))
    rows = np.array([row for rows in found for row in rows], dtype=np.float64)
    evidence[:, first : first + len(EVIDENCE)] = rows.reshape(-1, len(EVIDENCE))
    if not np.isfinite(evidence).all():
        raise EncoderError("the student gives values that are not finite")
    return evidence, owner


def _write_heads(
    path: Path,
    heads: LinearHeads,
    screener: _core.Screener,
    model: Model,
    weights: Sequence[float],
    bias: float,
) -> None:
    stored = [
        screener.evidence(np.ascontiguousarray(ids[np.newaxis, :]), "", 0, 0)[:2]
        for ids in model.selftest.token_ids
    ]
    np.savez_compressed(
        path,
        linear_weight=_scaled(heads),
        linear_bias=np.float32(heads.binary_bias),
        passage_weight=heads.evidence_weight.astype(np.float32),
        passage_bias=np.float32(heads.evidence_bias),
        weights=np.array(weights, dtype=np.float64),
        bias=np.float64(bias),
        selftest=np.array(stored, dtype=np.float32),
    )


def _dev_texts(
    folder: Path,
    model: Model,
    screener: _core.Screener,
    windower: Windower,
    records: Sequence[Record],
    options: ScreeningOptions,
) -> list[DevText]:
    """Dev as the scanner without screening sees it, and what screening says."""
    from raxe_fast import Scanner

    policy = Policy(screening=False)
    with Scanner(
        folder, forest="packed", backend=options.backend, max_windows=_NO_LIMIT, screening=False
    ) as scanner:

        def look(record: Record) -> DevText | None:
            text = record.text
            if not text or text.isspace():
                return None  # never gets to screening
            result = scanner.scan(text, policy=policy)
            parts = _parts(windower, text)
            texts = [text, *(view.text for view in parts_of(text).views)]
            rules = model.scorer.score([], _NO_OWNERS, texts)
            if len(parts) != len(result.window_scores):
                raise EncoderError(f"the scanner did not read a dev text: {result.error}")
            return DevText(
                record.label,
                record.family,
                result.tokens,
                max(item.rule_score for item in rules),
                np.array([screener(w.ids, part, w.begin, w.end) for w, part in parts]),
                np.array(result.window_scores),
            )

        found = _map(look, records, options.jobs)
    return [text for text in found if text is not None]


def _disguised(
    folder: Path,
    model: Model,
    screener: _core.Screener,
    windower: Windower,
    dev: Sequence[Record],
    options: ScreeningOptions,
) -> dict[str, list[list[DevText]]]:
    """Dev attacks in disguise, as the scanner without screening sees them."""

    def worth(text: str) -> float:
        """The logit that decides whether all of a text is cleared; more where triggers speak."""
        parts = _parts(windower, text)
        texts = list(dict.fromkeys(part for _, part in parts))
        rules = model.scorer.score([], _NO_OWNERS, texts)
        speak = max(item.rule_score for item in rules) >= RULES_SPEAK
        logits = [screener(w.ids, part, w.begin, w.end) for w, part in parts]
        # NaN clears nothing, either.
        return np.inf if np.isnan(logits).any() else max(logits) + _TRIGGERED * speak

    def count_tokens(text: str) -> int:
        return windower.windows(text).tokens

    disguise = attempts(dev, options.harden, worth, count_tokens, jobs=options.jobs)
    variants = {
        record.text: record for groups in disguise.values() for group in groups for record in group
    }
    # Those that are blank, which no scanner reads, are not among the attempts.
    found = _dev_texts(folder, model, screener, windower, list(variants.values()), options)
    return grouped(disguise, dict(zip(variants, found, strict=True)))
