"""Corpus and encoder in, model directory out."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from raxe_fast.errors import CorpusError
from raxe_fast.model import load_model
from raxe_fast.training.calibrate import fit_calibration
from raxe_fast.training.card import data_table, write_card
from raxe_fast.training.compose import rule_scores, score_embedded
from raxe_fast.training.corpus import Corpus, find_split, read_corpus
from raxe_fast.training.folds import Holdout
from raxe_fast.training.hardware import hardware
from raxe_fast.training.heads import HeadsConfig, export_forest, fit_heads
from raxe_fast.training.members import (
    HEADS,
    fit_triggers,
    manifest_base,
    parity_of,
    worst_probability,
    write_clusters,
    write_selftest,
)
from raxe_fast.training.package import pack, write_json, write_manifest
from raxe_fast.training.report import build_report
from raxe_fast.training.search import candidates, search_binary
from raxe_fast.training.thresholds import dev_curve, fit_thresholds
from raxe_fast.training.train_data import Labels, embed_split, prepare_encoder

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["TrainOptions", "train"]


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """What `train` may be told; the defaults are those of the shipped model.

    window_cap: windows of one training text that are embedded (dev and test: all of them).
    limit: records read from each split, for a quick try.
    search: try variations of the binary head on dev and take the best; `heads` is the base.
    """

    heads: HeadsConfig = field(default_factory=HeadsConfig)
    precision: str = "int8"
    window_cap: int = 6
    jobs: int = 2
    limit: int | None = None
    attack_clusters: int = 80
    benign_clusters: int = 40
    search: bool = False
    seed: int = 1


def train(
    corpus_dir: Path | str,
    encoder: str,
    output: Path | str,
    *,
    model_id: str | None = None,
    options: TrainOptions | None = None,
    cache: Path | str | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Trains a model into the directory `output` and returns its report (also report.json).

    corpus_dir holds train, dev and test as .jsonl or .jsonl.gz; test is only reported on, and may
    be missing. encoder is an exported directory or anything export_encoder accepts. The directory
    gets the model's members, `<id>.raxe` with the same content, and report.json. It is written
    beside its final place and moved there when complete.

    Raises CorpusError, ModelError, EncoderError; ValueError for a corpus without both classes.
    """
    options = options or TrainOptions()
    config = options.heads
    searched: list[dict[str, Any]] = []
    target = Path(output)
    model_id = model_id or target.name
    work = Path(cache) if cache is not None else target.parent / f".{target.name}.cache"
    work.mkdir(parents=True, exist_ok=True)
    clock = _Clock(console)

    files = prepare_encoder(encoder, work, options.precision)
    clock.done("encoder")
    directory = Path(corpus_dir)
    embed = partial(embed_split, files=files, cache=work, jobs=options.jobs)

    def read(name: str) -> Corpus:
        return read_corpus(find_split(directory, name), limit=options.limit)

    corpus = read("train")
    # A fine-tuned encoder: only what the heads will learn from is embedded.
    holdout = Holdout.find(encoder)
    needed = corpus.records
    if holdout is not None:
        needed = [record for record in needed if record.label == 1 or holdout.contains(record)]
    splits = {
        "train": embed("train", replace(corpus, records=needed), cap=options.window_cap),
        "dev": embed("dev", read("dev"), cap=None),
    }
    try:
        splits["test"] = embed("test", read("test"), cap=None)
    except CorpusError as error:
        if error.line is not None:
            raise
    clock.done("embed")

    learn, dev = splits["train"], splits["dev"]
    labels = Labels.of(learn.records)
    if options.search:
        tried = candidates(config)
        best, searched = search_binary(learn, dev, tried, options.jobs)
        config = tried[best]
        clock.done("search")
    heads = fit_heads(
        learn.embedded.vectors,
        learn.embedded.owner,
        learn.labels,
        *labels.numbers(learn.records),
        families=len(labels.families),
        subfamilies=len(labels.subfamilies),
        config=config,
        unseen=None if holdout is None else np.array([holdout.contains(r) for r in learn.records]),
        jobs=options.jobs,
    )
    clock.done("heads")
    compiled, triggers = fit_triggers(corpus)
    clock.done("triggers")
    rules = rule_scores(triggers, dev.corpus.texts)
    worst = worst_probability(heads, dev)
    calibration = fit_calibration(worst, rules, dev.labels, seed=options.seed)
    scores = calibration(calibration.evidence(worst, rules))
    thresholds = fit_thresholds(dev.labels, scores)
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
        {**calibration.to_dict(), "dev_curve": dev_curve(dev.labels, scores)},
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
    write_selftest(folder, files)
    clock.done("clusters, self-test")

    members = ["encoder.onnx", "tokenizer.json", *(f"heads/{name}.treelite" for name in HEADS),
               "calibration.json", "triggers.json", "clusters.npz", "selftest.npz"]  # fmt: skip
    manifest = manifest_base(model_id, files, labels, heads, thresholds)
    write_manifest(folder, manifest, members)
    model = load_model(folder, forest="packed")
    vectors = np.concatenate([s.embedded.vectors for n, s in splits.items() if n != "train"])
    parity = parity_of(folder, heads, vectors, calibration, thresholds["balanced"]["block"])
    machine = hardware()
    reports = {
        name: build_report(
            score_embedded(model, split.records, split.embedded),
            model_id=model_id,
            policy="balanced",
            thresholds=thresholds["balanced"],
            corpus=name,
            hardware=machine,
            extra={"method": "shipped scorer on cached embeddings of the shipped encoder"},
        )
        for name, split in splits.items()
        if name != "train"
    }
    clock.done("reports")
    training = {
        "texts": len(corpus.records),
        "attacks": sum(record.label for record in corpus.records),
        "embedded": len(learn.records),
        "windows": len(learn.embedded.owner),
        "holdout": None if holdout is None else holdout.to_dict(),
        "windows_left_out": int(learn.embedded.windows.sum()) - len(learn.embedded.owner),
        "window_cap": options.window_cap,
        "labelling": config.labelling,
        "heads": config.to_dict(),
        "search": searched,
        "triggers": len(compiled["triggers"]),
        "clusters": clusters,
        "calibration": {**calibration.log, **calibration.to_dict()},
        "seconds": clock.seconds,
        "parity": parity,
        "parity_embeddings": len(vectors),
        "parity_flips": _sum(parity, "verdict_flips"),
        "parity_difference": _max(parity, "max_abs_difference"),
    }
    card = write_card(
        manifest=manifest,
        reports=reports,
        training=training,
        licences=data_table(corpus.records),
    )
    (folder / "MODEL_CARD.md").write_text(card, encoding="utf-8")
    write_manifest(folder, manifest, [*members, "MODEL_CARD.md"])
    load_model(folder, forest="packed")
    pack(folder, folder / f"{model_id}.raxe")
    report = {"model_id": model_id, "training": training, **reports}
    write_json(folder / "report.json", report)
    _replace(folder, target)
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


def _replace(folder: Path, target: Path) -> None:
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    folder.rename(target)
    shutil.rmtree(old, ignore_errors=True)


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
