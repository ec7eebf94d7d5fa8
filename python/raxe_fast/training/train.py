"""Corpus and encoder in, model directory out."""

from __future__ import annotations

import math
import shutil
import time
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from raxe_fast.errors import CorpusError
from raxe_fast.feature_data import feature_sizes
from raxe_fast.model import load_model
from raxe_fast.training.augment import AugmentOptions, augment
from raxe_fast.training.card import data_table, write_card
from raxe_fast.training.corpus import Corpus, Record, find_split, read_corpus
from raxe_fast.training.encoder_restore import is_model
from raxe_fast.training.feature_fit import FOLDS, fit_features
from raxe_fast.training.feature_parts import FEATURES_FILE, Rows, save_features
from raxe_fast.training.finetune_options import FinetuneOptions
from raxe_fast.training.folds import Holdout, own_sources, salted_folds
from raxe_fast.training.heads import (
    HeadsConfig,
    export_forest,
    fit_heads,
    hide_columns,
    label_weights,
)
from raxe_fast.training.kept_parts import kept_encoder, kept_screening, windows_of_model
from raxe_fast.training.members import (
    HEADS,
    fit_triggers,
    manifest_base,
    parity_of,
    trigger_infos,
    write_clusters,
    write_selftest,
)
from raxe_fast.training.own_data import is_own, read_own_texts
from raxe_fast.training.package import pack, put_in_place, write_json, write_manifest
from raxe_fast.training.scan_report import scan_reports
from raxe_fast.training.score_fit import fit_score
from raxe_fast.training.screening import ENCODER_MEMBER, HEADS_MEMBER, fit_screening
from raxe_fast.training.screening_add import with_card_section
from raxe_fast.training.screening_choice import ScreeningOptions
from raxe_fast.training.search import candidates, search_binary
from raxe_fast.training.seen import Seen
from raxe_fast.training.thresholds import dev_curve
from raxe_fast.training.train_data import Labels, embed_split, prepare_encoder

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["TrainOptions", "train"]

_STACK_FOLDS = 4


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """What `train` may be told; the defaults are those of the shipped model.

    max_tokens, overlap_tokens: tokens of a window, special ones included, and those it shares with
        the next (None: as many as the encoder was tuned for, and a quarter of them).
    window_cap: windows of one training text that are embedded (dev and test: all of them).
    limit: records read from each split, for a quick try (without own_texts).
    search: try variations of the binary head on dev and take the best; `heads` is the base.
    own_texts: learn from the texts in own_texts/ too (models of fine-tuned encoders only).
    learn_seen: beginnings of the names of such sources that the heads learn from although the
        encoder has. Its logits are surer of these than of new ones; it is for kinds of text of
        which the heads would meet too few otherwise, and do not know what to make of. Names that
        no source begins with are refused.
    new_corpus: the encoder was tuned on another corpus, so its heads learn from all of this one and
        not only from the fold that its tuning would have left out. Wrong for the corpus that it
        was tuned on: the forest would learn a separation that is not there at run time.
    augment: what is made of the texts that a fine-tuned encoder has not seen, for the binary head
        and the weights of the evidence to learn from; None makes nothing. Texts alone teach them
        to trust the pooled embedding, which padding misleads.
    """

    heads: HeadsConfig = field(default_factory=HeadsConfig)
    precision: str = "int8"
    max_tokens: int | None = None
    overlap_tokens: int | None = None
    window_cap: int = 6
    jobs: int = 2
    limit: int | None = None
    attack_clusters: int = 80
    benign_clusters: int = 40
    search: bool = False
    own_texts: bool = True
    learn_seen: tuple[str, ...] = ()
    new_corpus: bool = False
    augment: AugmentOptions | None = field(
        default_factory=lambda: AugmentOptions(encoded=0.0, triggers=0.0, padded=0.12)
    )
    seed: int = 1


def train(
    corpus_dir: Path | str,
    encoder: str,
    output: Path | str,
    *,
    model_id: str | None = None,
    options: TrainOptions | None = None,
    cache: Path | str | None = None,
    screening: str | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Trains a model into the directory `output` and returns its report (also report.json).

    corpus_dir holds train, dev and test as .jsonl or .jsonl.gz; test is only reported on, and may
    be missing. encoder is an exported directory, anything export_encoder accepts, or a trained
    model with features, whose encoder is kept as it is and whose windows are the default. The
    directory gets the model's members, `<id>.raxe` with the same content, and report.json. It is
    written beside its final place and moved there when complete. screening: the directory of a tiny
    fine-tuned student that is to screen (screening.py), or a trained model whose screening network
    is kept.

    Raises CorpusError, ModelError, EncoderError; ValueError for a corpus without both classes, for
    sources in learn_seen that there are not, and for new_corpus with a tuned encoder that kept no
    fold.
    """
    options = options or TrainOptions()
    kept = FinetuneOptions().holdout
    if is_model(encoder) and options.max_tokens is None and options.overlap_tokens is None:
        tokens, overlap = windows_of_model(encoder)
        options = replace(options, max_tokens=tokens, overlap_tokens=overlap)
    with ExitStack() as stack:
        folder = stack.enter_context(kept_encoder(encoder, kept))
        student = None
        if screening is not None:
            student = stack.enter_context(kept_screening(screening, kept))
        return _train(corpus_dir, folder, Path(output), model_id, options, cache, student, console)


def _train(
    corpus_dir: Path | str,
    encoder: str,
    target: Path,
    model_id: str | None,
    options: TrainOptions,
    cache: Path | str | None,
    screening: str | None,
    console: Console | None,
) -> dict[str, Any]:
    config = options.heads
    searched: list[dict[str, Any]] = []
    model_id = model_id or target.name
    work = Path(cache) if cache is not None else target.parent / f".{target.name}.cache"
    work.mkdir(parents=True, exist_ok=True)
    clock = _Clock(console)

    files = prepare_encoder(encoder, work, options.precision)
    files = files.cut_into(options.max_tokens, options.overlap_tokens)
    clock.done("encoder")
    directory = Path(corpus_dir)
    embed = partial(embed_split, files=files, cache=work, jobs=options.jobs)

    def read(name: str) -> Corpus:
        return read_corpus(find_split(directory, name), limit=options.limit)

    corpus = read("train")
    holdout = Holdout.find(encoder)
    known_own = own_sources(encoder) if files.heads is not None else frozenset()
    if files.heads is not None and options.own_texts and options.limit is None:
        corpus.records += [item.record for item in read_own_texts()]
    if options.new_corpus and files.heads is not None and holdout is None:
        raise ValueError("an encoder that was tuned without a hold-out fold cannot take new_corpus")
    seen = Seen(holdout, known_own, options.learn_seen, options.new_corpus)
    seen.check(corpus.records)

    # A fine-tuned encoder: only what the heads will learn from is embedded.
    needed = corpus.records
    made: list[Record] = []
    if holdout is not None:
        needed = [record for record in needed if record.label == 1 or seen.unseen(record)]
        if options.augment is not None:
            material = [record for record in corpus.records if seen.held(record)]
            # What a made text is made of stays on one side of every split.
            folds = math.lcm(holdout.folds, FOLDS) if options.new_corpus else holdout.folds
            shares = replace(options.augment, folds=folds)
            made = [item.record for item in augment(material, shares)]
    splits = {
        "train": embed(
            "train", replace(corpus, records=needed + made), cap=options.window_cap, learnt=True
        ),
        "dev": embed("dev", read("dev"), cap=None),
    }
    clock.done("embed")

    learn, dev = splits["train"], splits["dev"]
    labels = Labels.of(learn.records)
    compiled, triggers = fit_triggers(corpus)
    clock.done("triggers")
    fit = None
    if files.heads is not None:
        fit = fit_features(
            corpus.records,
            seen.unseen,
            labels,
            files.heads,
            triggers,
            trigger_infos(compiled),
            files,
            out_of_fold=options.new_corpus,
            seed=options.seed,
            jobs=options.jobs,
        )
        rows = {"train": fit.train_rows(learn), "dev": fit.rows(dev)}
    else:
        rows = {name: Rows(s.embedded.vectors, files.hidden_size) for name, s in splits.items()}
    clock.done("features")
    learn_unseen = np.array([seen.unseen(record) for record in learn.records])
    hide = files.hidden_size if fit is not None and not config.embedding else 0
    if options.search:
        tried = candidates(config)
        best, searched = search_binary(
            learn,
            dev,
            tried,
            options.jobs,
            columns=(
                hide_columns(rows["train"].binary, hide),
                hide_columns(rows["dev"].binary, hide),
            ),
            unseen=None if holdout is None else learn_unseen,
        )
        config = tried[best]
        clock.done("search")
    label_weight = label_weights(learn.records, learn_unseen)
    # What they are made of has a label of its own already, and n-grams that know its words.
    label_weight[len(needed) :] = 0.0
    heads = fit_heads(
        rows["train"].binary,
        learn.owner,
        learn.labels,
        *labels.numbers(learn.records),
        families=len(labels.families),
        subfamilies=len(labels.subfamilies),
        config=config,
        unseen=None if holdout is None else learn_unseen,
        details=rows["train"].full,
        label_weight=label_weight,
        hide=hide,
        folds=None if fit is None else salted_folds("stack", learn.records, _STACK_FOLDS),
        jobs=options.jobs,
    )
    clock.done("heads")
    score = fit_score(
        heads, None if fit is None else fit.data, rows, splits, labels, triggers, seed=options.seed
    )
    calibration, thresholds = score.calibration, score.thresholds
    clock.done("calibration")

    folder = target.with_name(f".{target.name}.partial")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in ("encoder.onnx", "tokenizer.json"):
        shutil.copyfile(files.folder / name, folder / name)
    for name, forest in zip(HEADS, (heads.binary, heads.family, heads.subfamily), strict=True):
        export_forest(forest, folder / f"heads/{name}.treelite")
    write_json(
        folder / "calibration.json",
        {**calibration.to_dict(), "dev_curve": dev_curve(dev.labels, score.dev_scores)},
    )
    write_json(folder / "triggers.json", compiled)
    clusters = write_clusters(
        folder,
        learn,
        heads,
        attack_clusters=options.attack_clusters,
        benign_clusters=options.benign_clusters,
        seed=options.seed,
    )
    members = ["encoder.onnx", "tokenizer.json", *(f"heads/{name}.treelite" for name in HEADS),
               "calibration.json", "triggers.json", "clusters.npz", "selftest.npz"]  # fmt: skip
    sizes = None
    if fit is not None:
        save_features(folder / FEATURES_FILE, fit.data)
        sizes = feature_sizes(fit.data, len(labels.families))
        members.append(FEATURES_FILE)
    write_selftest(folder, files, None if fit is None else fit.features, triggers)
    clock.done("clusters, self-test")

    tuned: dict[str, Any] | None = None
    if holdout is not None:
        tuned = {"holdout": holdout.to_dict(), "own_sources": sorted(known_own)}
        if options.new_corpus:
            tuned["new_corpus"] = True
    manifest = manifest_base(model_id, files, labels, heads, thresholds, sizes, tuned)
    write_manifest(folder, manifest, members)
    load_model(folder, forest="packed")
    parity = parity_of(folder, heads, rows["dev"], calibration, thresholds["balanced"]["block"])
    parity_rows = len(rows["dev"].full)
    screened = None
    if screening is not None:
        section, screened = fit_screening(
            folder, screening, corpus.records, dev.records, work, main_holdout=holdout,
            ngrams=not options.new_corpus, options=ScreeningOptions(jobs=options.jobs),
        )  # fmt: skip
        manifest["screening"] = section
        members += [ENCODER_MEMBER, HEADS_MEMBER]
        write_manifest(folder, manifest, members)
        clock.done("screening")
    scanned = [("dev", dev.corpus)]
    try:
        scanned.append(("test", read("test")))
    except CorpusError as error:
        if error.line is not None:
            raise
    reports = scan_reports(folder, scanned, model_id, thresholds["balanced"], options.jobs)
    clock.done("reports")
    training = {
        "texts": len(corpus.records),
        "attacks": sum(record.label for record in corpus.records),
        "embedded": len(needed),
        "windows": len(learn.owner),
        "own_texts": sum(is_own(r) for r in corpus.records),
        "augmented": len(made),
        "encoder_texts_unseen": int(learn_unseen[: len(needed)].sum()),
        "learn_seen": {
            "sources": list(options.learn_seen),
            "texts": sum(map(seen.learnt_again, needed)),
        },
        "holdout": None if holdout is None else holdout.to_dict(),
        "new_corpus": options.new_corpus,
        "windows_left_out": int(learn.embedded.windows.sum()) - len(learn.owner),
        "window_cap": options.window_cap,
        "labelling": config.labelling,
        "heads": config.to_dict(),
        "search": searched,
        "class_factors": score.class_factors,
        "triggers": len(compiled["triggers"]),
        "clusters": clusters,
        "calibration": {**calibration.log, **calibration.to_dict()},
        "seconds": clock.seconds,
        "parity": parity,
        "parity_embeddings": parity_rows,
        "parity_flips": _sum(parity, "verdict_flips"),
        "parity_difference": _max(parity, "max_abs_difference"),
    }
    card = write_card(
        manifest=manifest,
        reports=reports,
        training=training,
        licences=data_table(corpus.records),
    )
    if screened is not None:
        card = with_card_section(card, screened)
    (folder / "MODEL_CARD.md").write_text(card, encoding="utf-8")
    write_manifest(folder, manifest, [*members, "MODEL_CARD.md"])
    load_model(folder, forest="packed")
    pack(folder, folder / f"{model_id}.raxe")
    report = {"model_id": model_id, "training": training, **reports}
    if screened is not None:
        report["screening"] = screened
    write_json(folder / "report.json", report)
    put_in_place(folder, target)
    clock.done("package")
    return report


def _sum(parity: dict[str, Any], key: str) -> int:
    return sum(
        item[key] for head in parity.values() for item in head.values() if isinstance(item, dict)
    )


def _max(parity: dict[str, Any], key: str) -> float:
    return max(
        float(item[key])
        for head in parity.values()
        for item in head.values()
        if isinstance(item, dict)
    )


class _Clock:
    """Seconds by stage, printed as they pass."""

    def __init__(self, console: Console | None) -> None:
        self.seconds: dict[str, float] = {}
        self._console = console
        self._last = time.perf_counter()

    def done(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage] = round(now - self._last, 1)
        self._last = now
        if self._console is not None:
            self._console.print(f"{stage}: {self.seconds[stage]} s")
