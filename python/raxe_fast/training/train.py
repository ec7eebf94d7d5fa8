"""Corpus and encoder in, model directory out."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from raxe_fast import _core
from raxe_fast.errors import CorpusError
from raxe_fast.model import load_model
from raxe_fast.parts import decode_triggers
from raxe_fast.training.calibrate import CalibrationFit, fit_calibration
from raxe_fast.training.card import data_table, write_card
from raxe_fast.training.clusters import build_clusters
from raxe_fast.training.compose import rule_scores, score_embedded
from raxe_fast.training.corpus import Corpus, Record, find_split, read_corpus
from raxe_fast.training.embed import Embedded, EncoderFiles, TextEmbedder, embed_texts
from raxe_fast.training.hardware import hardware
from raxe_fast.training.heads import Heads, HeadsConfig, export_forest, fit_heads
from raxe_fast.training.metrics import Floats, Ints
from raxe_fast.training.package import (
    SELF_TEST_TEXTS,
    pack,
    save_selftest,
    write_json,
    write_manifest,
)
from raxe_fast.training.parity import head_parity
from raxe_fast.training.report import build_report
from raxe_fast.training.thresholds import dev_curve, fit_thresholds
from raxe_fast.training.trigger_weights import fired_counts, fit_weights
from raxe_fast.treelite_reader import read_treelite

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["TrainOptions", "prepare_encoder", "train"]

HEADS = ("binary", "family", "subfamily")
BENIGN = "benign"


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """What `train` may be told; the defaults are those of the shipped model.

    window_cap: windows of one training text that are embedded (dev and test: all of them).
    limit: records read from each split, for a quick try.
    """

    heads: HeadsConfig = field(default_factory=HeadsConfig)
    precision: str = "int8"
    window_cap: int = 6
    jobs: int = 2
    limit: int | None = None
    attack_clusters: int = 80
    benign_clusters: int = 40
    seed: int = 1


@dataclass(frozen=True, slots=True)
class _Split:
    corpus: Corpus
    embedded: Embedded

    @property
    def records(self) -> list[Record]:
        return self.corpus.records

    @property
    def labels(self) -> Ints:
        return np.array([record.label for record in self.corpus.records], dtype=np.int64)


@dataclass(frozen=True, slots=True)
class _Labels:
    families: list[str]
    subfamilies: list[tuple[str, str]]  # (family, subfamily), sorted

    @classmethod
    def of(cls, records: Sequence[Record]) -> _Labels:
        attacks = [record for record in records if record.label == 1]
        for record in attacks:
            if not record.family or not record.subfamily:
                raise CorpusError("an attack without family or subfamily", line=record.line)
        pairs = sorted({(record.family, record.subfamily) for record in attacks})
        return cls(sorted({family for family, _ in pairs}), pairs)

    def numbers(self, records: Sequence[Record]) -> tuple[Ints, Ints]:
        """Class numbers per record, -1 for harmless texts."""
        family = {name: i for i, name in enumerate(self.families)}
        pair = {name: i for i, name in enumerate(self.subfamilies)}
        attacks = [record.label == 1 for record in records]
        return (
            np.array([family[r.family] if a else -1 for r, a in zip(records, attacks, strict=True)]),
            np.array(
                [pair[r.family, r.subfamily] if a else -1
                 for r, a in zip(records, attacks, strict=True)]
            ),
        )  # fmt: skip


def prepare_encoder(encoder: str, work: Path, precision: str) -> EncoderFiles:
    """An exported encoder directory as it is; anything else is exported into `work` first."""
    from raxe_fast.training.encoder_export import export_encoder

    if (Path(encoder) / "export.json").is_file():
        return EncoderFiles.open(encoder)
    name = "".join(c if c.isalnum() else "-" for c in Path(encoder).name)
    target = work / f"encoder-{name}-{precision}"
    export_encoder(encoder, target, precision=precision)
    return EncoderFiles.open(target)


def _read_split(
    directory: Path, name: str, files: EncoderFiles, cache: Path, options: TrainOptions
) -> _Split:
    corpus = read_corpus(find_split(directory, name), limit=options.limit)
    cap = options.window_cap if name == "train" else None
    embedded = embed_texts(
        corpus.texts, files, cache, cap=cap, jobs=options.jobs, title=f"embed {name}"
    )
    return _Split(corpus, embedded)


def _trigger_set(compiled: dict[str, Any]) -> _core.TriggerSet:
    triggers = decode_triggers(json.dumps(compiled).encode())
    return _core.TriggerSet([(item.phrases, item.literals, item.weight) for item in triggers])


def _fit_triggers(train: _Split) -> tuple[dict[str, Any], _core.TriggerSet]:
    from raxe_fast.training.triggers import compile_triggers, load_source

    source = load_source()
    compiled = compile_triggers(source)
    entries: list[dict[str, Any]] = compiled["triggers"]
    unweighted = _trigger_set(compiled)
    attack, benign = fired_counts(
        train.corpus.texts,
        train.labels,
        lambda text: (int(match[0]) for match in unweighted.match(text)),
        len(entries),
    )
    compiled = compile_triggers(source, fit_weights(entries, attack, benign))
    return compiled, _trigger_set(compiled)


def _worst_probability(heads: Heads, split: _Split) -> Floats:
    """(texts,) highest P(attack) over the windows of each text; 0 for a text without windows."""
    worst = np.zeros(len(split.records))
    probability = np.asarray(heads.binary.predict_proba(split.embedded.vectors))[:, 1]
    np.maximum.at(worst, split.embedded.owner, probability)
    return worst


def _first_windows(embedded: Embedded, texts: Ints) -> Ints:
    """Row of the first window of each of `texts`, which must have one."""
    return np.searchsorted(embedded.owner, texts)


def _write_clusters(
    folder: Path, train: _Split, heads: Heads, options: TrainOptions
) -> dict[str, int]:
    embedded = train.embedded
    labels = train.labels
    have = np.unique(embedded.owner)
    benign = have[labels[have] == 0]
    rows = np.concatenate([heads.worst_rows, _first_windows(embedded, benign)])
    owners = embedded.owner[rows].tolist()
    found = build_clusters(
        embedded.vectors[rows],
        [train.records[i].text for i in owners],
        [
            (r.family, r.subfamily) if r.label == 1 else (BENIGN, r.subfamily or "other")
            for r in (train.records[i] for i in owners)
        ],
        attack_clusters=options.attack_clusters,
        benign_clusters=options.benign_clusters,
        seed=options.seed,
    )
    found.save(str(folder / "clusters.npz"))
    return {"attack": found.n_attack, "benign": len(found.labels) - found.n_attack}


def _write_selftest(folder: Path, files: EncoderFiles) -> None:
    embedder = TextEmbedder(files)
    ids = [embedder.token_ids(text)[0] for text in SELF_TEST_TEXTS]
    embeddings = np.stack([embedder.vector(window) for window in ids])
    outputs = [
        _core.Forest.packed(
            *read_treelite((folder / f"heads/{name}.treelite").read_bytes())
        ).predict(embeddings)
        for name in HEADS
    ]
    save_selftest(folder / "selftest.npz", ids, embeddings, *outputs)


def _manifest(
    model_id: str,
    files: EncoderFiles,
    labels: _Labels,
    heads: Heads,
    thresholds: dict[str, dict[str, float]],
) -> dict[str, Any]:
    names = ("base", "architecture", "precision", "hidden_size", "layers", "vocab_size", "input",
             "output", "cls_id", "sep_id", "pad_id", "max_tokens")  # fmt: skip
    forests = {"binary": heads.binary, "family": heads.family, "subfamily": heads.subfamily}
    return {
        "schema": 1,
        "id": model_id,
        "version": "1",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "package_version": _core.__version__,
        "encoder": {
            "file": "encoder.onnx",
            **{name: files.info[name] for name in names},
            "overlap_tokens": files.overlap_tokens,
        },
        "labels": {
            "families": labels.families,
            "subfamilies": [{"name": s, "family": f} for f, s in labels.subfamilies],
        },
        "heads": {
            name: {
                "file": f"heads/{name}.treelite",
                "trees": len(forest.estimators_),
                "outputs": len(forest.classes_),
            }
            for name, forest in forests.items()
        },
        "features": [{"name": "embedding", "size": files.hidden_size}],
        # Every text that any preset warns about gets its family.
        "detail_threshold": min(preset["warn"] for preset in thresholds.values()),
        "thresholds": thresholds,
    }


def _parity(
    folder: Path, heads: Heads, vectors: np.ndarray[Any, np.dtype[np.float32]],
    fit: CalibrationFit, block: float,
) -> dict[str, Any]:  # fmt: skip
    # The forest probability that alone, without any trigger, reaches the block threshold.
    grid = np.linspace(0, 1, 100001)
    reach = fit(fit.evidence(grid, np.zeros(len(grid))))
    over = np.flatnonzero(reach >= block)
    threshold = float(grid[over[0]]) if len(over) else 0.5
    forests = {"binary": heads.binary, "family": heads.family, "subfamily": heads.subfamily}
    result: dict[str, Any] = {
        name: head_parity(
            forest,
            folder / f"heads/{name}.treelite",
            vectors,
            threshold if name == "binary" else None,
        )
        for name, forest in forests.items()
    }
    result["binary"]["verdict_threshold"] = threshold
    return result


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
    target = Path(output)
    model_id = model_id or target.name
    work = Path(cache) if cache is not None else target.parent / f".{target.name}.cache"
    work.mkdir(parents=True, exist_ok=True)
    clock = _Clock(console)

    files = prepare_encoder(encoder, work, options.precision)
    clock.done("encoder")
    directory = Path(corpus_dir)
    splits = {name: _read_split(directory, name, files, work, options) for name in ("train", "dev")}
    try:
        splits["test"] = _read_split(directory, "test", files, work, options)
    except CorpusError as error:
        if error.line is not None:
            raise
    clock.done("embed")

    learn, dev = splits["train"], splits["dev"]
    labels = _Labels.of(learn.records)
    heads = fit_heads(
        learn.embedded.vectors,
        learn.embedded.owner,
        learn.labels,
        *labels.numbers(learn.records),
        families=len(labels.families),
        subfamilies=len(labels.subfamilies),
        config=options.heads,
        jobs=options.jobs,
    )
    clock.done("heads")
    compiled, triggers = _fit_triggers(learn)
    clock.done("triggers")
    rules = rule_scores(triggers, dev.corpus.texts)
    calibration = fit_calibration(
        _worst_probability(heads, dev), rules, dev.labels, seed=options.seed
    )
    scores = calibration(calibration.evidence(_worst_probability(heads, dev), rules))
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
    clusters = _write_clusters(folder, learn, heads, options)
    _write_selftest(folder, files)
    clock.done("clusters, self-test")

    members = ["encoder.onnx", "tokenizer.json", *(f"heads/{name}.treelite" for name in HEADS),
               "calibration.json", "triggers.json", "clusters.npz", "selftest.npz"]  # fmt: skip
    manifest = _manifest(model_id, files, labels, heads, thresholds)
    write_manifest(folder, manifest, members)
    model = load_model(folder, forest="packed")
    vectors = np.concatenate([s.embedded.vectors for n, s in splits.items() if n != "train"])
    parity = _parity(folder, heads, vectors, calibration, thresholds["balanced"]["block"])
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
        "texts": len(learn.records),
        "attacks": int(learn.labels.sum()),
        "windows": len(learn.embedded.owner),
        "windows_left_out": int(learn.embedded.windows.sum()) - len(learn.embedded.owner),
        "window_cap": options.window_cap,
        "labelling": options.heads.labelling,
        "heads": options.heads.to_dict(),
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
        licences=data_table(learn.records),
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
        item[key] for head in parity.values() for item in head.values() if isinstance(item, dict)
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
