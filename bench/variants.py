"""Variants of the model in one table: heads on one encoder, and encoders of other shapes.

    python bench/variants.py --corpus DIR --encoder TUNED_DIR --cache DIR --output variants.json

Needs `pip install ".[train,bench]"`. See bench/README.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer

from hardware import hardware, load_average
from raxe_fast import _core
from raxe_fast.training.corpus import Corpus, Record, find_split, read_corpus
from raxe_fast.training.embed import EncoderFiles
from raxe_fast.training.evaluate import sample_records
from raxe_fast.training.feature_fit import fit_features
from raxe_fast.training.feature_parts import Rows, save_features
from raxe_fast.training.folds import Holdout, own_sources
from raxe_fast.training.heads import export_forest
from raxe_fast.training.members import fit_triggers, trigger_infos
from raxe_fast.training.own_data import is_own, read_own_texts
from raxe_fast.training.package import write_json
from raxe_fast.training.train_data import Labels, embed_split, prepare_encoder
from raxe_fast.treelite_reader import read_treelite
from raxe_fast.windows import Windower
from texts import bucket_texts
from variant_heads import (
    ALL,
    EMBEDDING,
    Boosted,
    Detector,
    Namer,
    Prepared,
    detectors,
    judged,
    label_figures,
    namers,
)
from variant_shapes import interleaved, measure_shapes

BUCKETS = (16, 32, 64, 128, 256)
TEXTS = 20  # different ones per bucket
# The row that the others are compared with: everything before the head.
ENCODER_ALONE = "tokeniser, encoder, pooling alone"

Scan = Callable[[str], object]


def prepare(options: argparse.Namespace, encoder: str, frozen: bool) -> Prepared:
    """What `raxe-fast train` would fit heads on, made the same way. For a ``frozen`` encoder a
    sample of the training texts, all of which it has not seen.

    Raises CorpusError, ModelError, EncoderError; ValueError for a fine-tuned encoder without
    linear heads or without a hold-out.
    """
    options.cache.mkdir(parents=True, exist_ok=True)
    files = prepare_encoder(encoder, options.cache, "int8")
    holdout = Holdout.find(encoder)
    if frozen:
        files = replace(files, heads=None)
    elif files.heads is None or holdout is None:
        raise ValueError(f"{Path(encoder).name}: not fine-tuned with linear heads and a hold-out")

    def read(name: str) -> Corpus:
        return read_corpus(find_split(options.corpus, name), limit=options.limit)

    corpus = read("train")
    if not frozen and options.limit is None:
        corpus.records += [item.record for item in read_own_texts()]
    known_own = own_sources(encoder)

    def unseen(record: Record) -> bool:
        own = is_own(record)
        return (own and record.source not in known_own) or (
            holdout is not None and holdout.contains(record)
        )

    if frozen:
        needed = sample_records(corpus.records, options.frozen_texts, options.seed)
    else:
        needed = [record for record in corpus.records if record.label == 1 or unseen(record)]
    splits = {
        name: embed_split(
            name, part, files, options.cache, cap=cap, jobs=options.jobs, learnt=name == "train"
        )
        for name, part, cap in (
            ("train", replace(corpus, records=needed), options.window_cap),
            ("dev", read("dev"), None),
            ("test", read("test"), None),
        )
    }
    labels = Labels.of(needed)
    compiled, triggers = fit_triggers(corpus)
    rows = {name: Rows(split.embedded.vectors, files.hidden_size) for name, split in splits.items()}
    data = features = None
    if files.heads is not None:
        fit = fit_features(
            corpus.records, unseen, labels, files.heads, triggers, trigger_infos(compiled), files,
            seed=options.seed, jobs=options.jobs,
        )  # fmt: skip
        data, features = fit.data, fit.features
        rows = {name: fit.rows(split) for name, split in splits.items() if name != "train"}
        rows["train"] = fit.train_rows(splits["train"])
    return Prepared(
        files=files,
        splits=splits,
        rows=rows,
        labels=labels,
        triggers=triggers,
        trigger_bytes=len(json.dumps(compiled)),
        unseen=None if frozen else np.array([unseen(r) for r in needed], dtype=np.bool_),
        data=data,
        features=features,
        jobs=options.jobs,
        seed=options.seed,
    )


# --- files and time -------------------------------------------------------------------------------


def stored_bytes(prepared: Prepared, sees: str, folder: Path) -> dict[str, int]:
    """Bytes of the files that a variant needs besides its trees."""
    out = {"tokenizer": (prepared.files.folder / "tokenizer.json").stat().st_size}
    if sees != "n-grams alone":
        out["encoder"] = (prepared.files.folder / "encoder.onnx").stat().st_size
    if sees in (EMBEDDING, ALL, "evidence"):
        out["triggers"] = prepared.trigger_bytes
    path, data = folder / "features.npz", prepared.data
    if data is None or sees in (EMBEDDING, ENCODER_ALONE):
        return out
    if sees == "linear head alone":
        np.savez_compressed(path, weight=data.linear_weight, bias=data.linear_bias)
    elif sees == "strongest passage alone":
        np.savez_compressed(path, weight=data.passage_weight, bias=data.passage_bias)
    elif sees == "n-grams alone":
        np.savez_compressed(
            path,
            lexical_table=data.lexical_table,
            lexical_scale=data.lexical_scale,
            lexical_bias=data.lexical_bias,
            label_table=data.label_table,
            label_scale=data.label_scale,
            label_bias=data.label_bias,
        )
    else:
        save_features(path, data)
    out["features"] = path.stat().st_size
    return out


def packed_heads(variant: Detector | Namer, folder: Path) -> tuple[list[_core.Forest], int]:
    """The trees of a variant as the core runs them, and the bytes of their Treelite files."""
    import treelite

    path = folder / "head.treelite"
    head = variant.head
    if head is None:
        return [], 0
    if isinstance(head, Boosted):
        treelite.sklearn.import_model(head.model).serialize(str(path))
        return [head.packed()[0]], path.stat().st_size
    forests, size = [], 0
    models = [head.binary] if isinstance(variant, Detector) else [head.family, head.subfamily]
    for model in models:
        export_forest(model, path)
        forests.append(_core.Forest.packed(*read_treelite(path.read_bytes())))
        size += path.stat().st_size
    return forests, size


class _Scans:
    """Text -> what a variant says of it, on one thread, through the core's own pieces."""

    def __init__(self, prepared: Prepared) -> None:
        files = prepared.files
        self._prepared = prepared
        self._windower = Windower.from_file(
            files.folder / "tokenizer.json", max_tokens=files.max_tokens,
            overlap=files.overlap_tokens,
        )  # fmt: skip
        self._encoder = files.open_encoder()

    def encoder_alone(self, text: str) -> None:
        for window in self._windower.windows(text).windows:
            _core.mean_pool_l2(self._encoder.encode(window.ids)[0], None)

    def of(self, sees: str, forests: Sequence[_core.Forest]) -> Scan:
        """The scan of a variant; `forests` are asked for every window."""
        p = self._prepared
        if sees == EMBEDDING:
            return lambda text: self._embedding(text, forests)
        data, features = p.data, p.features
        assert data is not None and features is not None
        weight, bias = data.passage_weight, data.passage_bias
        nothing = np.zeros(p.files.hidden_size, np.float32)

        def states(window: Any) -> Any:
            return self._encoder.encode(window.ids)[0]

        def rows(text: str) -> None:
            matches = p.triggers.match(text)
            for window in self._windower.windows(text).windows:
                tokens = states(window)
                vector = _core.mean_pool_l2(tokens, None)
                evidence = _core.strongest_passage(tokens, weight, bias)[0]
                row = features.row(vector, evidence, text, window.begin, window.end, matches)
                for forest in forests:
                    forest.predict(row[None, : forest.n_features])

        def linear(text: str) -> None:
            for window in self._windower.windows(text).windows:
                data.linear_weight @ _core.mean_pool_l2(states(window), None) + data.linear_bias

        def passage(text: str) -> None:
            for window in self._windower.windows(text).windows:
                _core.strongest_passage(states(window), weight, bias)

        def lexical(text: str) -> None:
            for window in self._windower.windows(text).windows:
                features.row(nothing, 0.0, text, window.begin, window.end, [])

        known = {
            "linear head alone": linear,
            "strongest passage alone": passage,
            "n-grams alone": lexical,
        }
        return known.get(sees, rows)

    def _embedding(self, text: str, forests: Sequence[_core.Forest]) -> None:
        self._prepared.triggers.rule_score(text)
        for window in self._windower.windows(text).windows:
            vector = _core.mean_pool_l2(self._encoder.encode(window.ids)[0], None)
            for forest in forests:
                forest.predict(vector[None])


def add_latencies(
    rows: Sequence[dict[str, Any]],
    scans: Mapping[str, Scan],
    tokenizer: Path,
    buckets: Sequence[int],
    iterations: int,
) -> None:
    """Puts "latency" into the rows, by bucket: all scans take turns in one process."""
    engine = Tokenizer.from_file(str(tokenizer))
    for row in rows:
        row["latency"] = {}
    for tokens in buckets:
        texts = bucket_texts(engine, tokens, TEXTS)

        def timed(scan: Scan, texts: Sequence[str] = texts) -> Callable[[int], object]:
            return lambda index: scan(texts[index % len(texts)])

        found = interleaved({name: timed(scan) for name, scan in scans.items()}, iterations)
        for row in rows:
            row["latency"][str(tokens)] = found[row["name"]]


# --- rows -----------------------------------------------------------------------------------------


def head_rows(
    prepared: Prepared, prefix: str, done: Callable[[str], None]
) -> tuple[list[dict[str, Any]], dict[str, Scan]]:
    """Rows of all variants on one encoder without their latencies, and how each scans."""
    found = detectors(prepared)
    done("detectors")
    scans = _Scans(prepared)
    rows: list[dict[str, Any]] = []
    calls: dict[str, Scan] = {}

    def add(variant: Detector | Namer, figures: dict[str, Any], **more: Any) -> None:
        name = prefix + variant.name
        with tempfile.TemporaryDirectory() as folder:
            forests, size = packed_heads(variant, Path(folder))
            stored = {**stored_bytes(prepared, variant.sees, Path(folder)), "heads": size}
        rows.append({"part": "heads", "name": name, **figures, "bytes": stored, **more})
        calls[name] = scans.of(variant.sees, forests)

    worst = {}
    for detector in found:
        figures, worst[detector.name], calibration = judged(
            detector, prepared.splits, prepared.seed
        )
        add(
            detector, figures, calibration=calibration.to_dict(), stack=detector.stack,
            **(detector.notes or {}),
        )  # fmt: skip
    done("detectors judged")
    for namer in namers(prepared, found, worst):
        add(namer, label_figures(prepared, namer, worst[namer.windows]), windows_of=namer.windows)
    done("labels")
    name = prefix + ENCODER_ALONE
    stored = stored_bytes(prepared, ENCODER_ALONE, Path())
    rows.append({"part": "heads", "name": name, "bytes": stored})
    calls[name] = scans.encoder_alone
    return rows, calls


def counts(prepared: Prepared) -> dict[str, Any]:
    """Texts by split, and what the heads learnt from."""
    out: dict[str, Any] = {
        name: {"texts": len(split.records), "attacks": int(split.labels.sum())}
        for name, split in prepared.splits.items()
    }
    inside = np.unique(prepared.splits["train"].owner[prepared.inside])
    out["detectors_learn_from"] = {
        "texts": len(inside),
        "attacks": int(prepared.splits["train"].labels[inside].sum()),
    }
    out["families"] = len(prepared.labels.families)
    out["subfamilies"] = len(prepared.labels.subfamilies)
    return out


def print_table(report: Mapping[str, Any], console: Console) -> None:
    """One row per variant: figures of the test split, files, latency."""
    buckets = [str(tokens) for tokens in report["settings"]["buckets"]]
    table = Table(title="test split; MB: all files of the row; ms: p50 / p95, one thread")
    table.add_column("variant", no_wrap=True)
    for column in ("F1", "FPR %", "FNR %", "R@1 %", "AUC", "fam F1", "sub F1", "MB", "head MB",
                   *(f"{tokens} tok" for tokens in buckets)):  # fmt: skip
        table.add_column(column, justify="right", no_wrap=True)

    def value(item: Mapping[str, Any] | None, scale: float = 1.0, digits: int = 4) -> str:
        number = None if item is None else item["value"]
        return "-" if number is None else f"{scale * number:.{digits}f}"

    rows = report["variants"]
    for i, row in enumerate(rows):
        test = row.get("test", {})
        recall = test.get("recall_at_fpr_0.01")
        heads = row["bytes"].get("heads", 0) + row["bytes"].get("features", 0)
        name = row["name"]
        if row["part"] == "shapes":
            name = f"encoder: {name} ({row['weights']} weights)"
        last = i + 1 == len(rows) or rows[i + 1]["part"] != row["part"]
        table.add_row(
            name,
            value(test.get("f1")), value(test.get("fpr"), 100, 2), value(test.get("fnr"), 100, 2),
            "-" if recall is None else f"{100 * recall:.2f}",
            value(test.get("auc")),
            value(test.get("family_macro_f1"), digits=3),
            value(test.get("subfamily_macro_f1"), digits=3),
            f"{sum(row['bytes'].values()) / 1e6:.1f}",
            f"{heads / 1e6:.2f}" if "heads" in row["bytes"] else "-",
            *(_milliseconds(row["latency"].get(tokens)) for tokens in buckets),
            end_section=last,
        )  # fmt: skip
    console.print(table)
    load = report["load_average"]
    console.print(f"load average {load['start']} -> {load['end']}", highlight=False)


def _milliseconds(summary: Mapping[str, Any] | None) -> str:
    return "-" if summary is None else f"{summary['p50']:.2f} / {summary['p95']:.2f}"


# --- program --------------------------------------------------------------------------------------


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--corpus", type=Path, required=True, help="with train, dev and test")
    parser.add_argument("--encoder", required=True, help="directory of a fine-tuned encoder")
    parser.add_argument("--cache", type=Path, required=True, help="exports and embeddings")
    parser.add_argument("--output", type=Path, required=True, help="the JSON record")
    parser.add_argument("--heads", action="store_true", help="the heads; default: both parts")
    parser.add_argument("--shapes", action="store_true", help="the shapes; default: both parts")
    parser.add_argument("--frozen", metavar="ENCODER", help="one that was never fine-tuned, too")
    parser.add_argument(
        "--students", nargs="*", default=[], metavar="DIR", help="distilled encoders, too"
    )
    parser.add_argument(
        "--frozen-texts", type=int, default=20000, help="training texts it is embedded on"
    )
    parser.add_argument("--limit", type=int, help="records read from each split, for a quick try")
    parser.add_argument("--window-cap", type=int, default=6, help="windows of a training text")
    parser.add_argument("--iterations", type=int, default=300, help="by variant and bucket")
    parser.add_argument("--buckets", type=int, nargs="+", default=list(BUCKETS))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    if min(options.iterations, options.frozen_texts, options.window_cap, options.jobs) < 1:
        parser.error("--iterations, --frozen-texts, --window-cap, --jobs must be at least 1")
    if not options.heads and not options.shapes:
        options.heads = options.shapes = True
    if options.frozen and not options.heads:
        parser.error("--frozen is a row among the heads")
    return options


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The record. Raises what :func:`prepare` raises."""
    last = [time.perf_counter()]

    def done(stage: str) -> None:
        now = time.perf_counter()
        console.print(f"{stage}: {now - last[0]:.1f} s", highlight=False)
        last[0] = now

    load: dict[str, Any] = {"start": load_average()}
    rows: list[dict[str, Any]] = []
    corpus: dict[str, Any] = {}
    if options.heads:
        scans: dict[str, Scan] = {}
        todo = [(options.encoder, False, "")]
        todo += [(student, False, f"{Path(student).name}: ") for student in options.students]
        if options.frozen:
            todo.append((options.frozen, True, "frozen encoder: "))
        folder = None
        for encoder, frozen, prefix in todo:
            prepared = prepare(options, encoder, frozen)
            done(f"{prefix}rows")
            corpus["frozen" if frozen else prefix.removesuffix(": ") or "tuned"] = counts(prepared)
            more, calls = head_rows(prepared, prefix, done)
            rows += more
            scans |= calls
            folder = folder or prepared.files.folder
        assert folder is not None
        add_latencies(rows, scans, folder / "tokenizer.json", options.buckets, options.iterations)
        done("latency of the heads")
    if options.shapes:
        files: EncoderFiles = prepare_encoder(options.encoder, options.cache, "int8")
        tokenizer = json.loads((files.folder / "tokenizer.json").read_text(encoding="utf-8"))
        rows += measure_shapes(
            tokenizer, files.folder / "encoder.onnx", options.buckets, options.iterations
        )
        done("shapes")
    load["end"] = load_average()
    return {
        "timestamp": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "load_average": load,
        "settings": {
            "encoder": Path(options.encoder).name,
            "students": [Path(student).name for student in options.students],
            "frozen": options.frozen and Path(options.frozen).name,
            "limit": options.limit,
            "window_cap": options.window_cap,
            "iterations": options.iterations,
            "buckets": options.buckets,
            "seed": options.seed,
        },
        "corpus": corpus,
        "variants": rows,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    # Through a pipe the width is 80, which cuts the figures off.
    console = Console() if Console().is_terminal else Console(width=220)
    report = run(options, console)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.output, report)
    print_table(report, console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
