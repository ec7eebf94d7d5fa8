"""What an encoder loses when it is made smaller without training: fewer bits, zeros, heads, layers.

    python bench/compression.py --encoder models/raxe-l6-v7/raxe-l6-v7.raxe \
        --corpus ../shared/data/dev.jsonl.gz --texts 2000 --output compression.json

Needs `pip install ".[finetune,bench]"`. Each variant is scored by the encoder's own linear head and
its strongest passage, as in tuning; no forests, no thresholds chosen elsewhere. See README.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from compression_variants import variants
from hardware import hardware, load_average
from raxe_fast.training.corpus import read_corpus
from raxe_fast.training.encoder_export import prepare_tokenizer
from raxe_fast.training.encoder_restore import encoder_folder
from raxe_fast.training.encoder_source import EncoderSource, load_source
from raxe_fast.training.evaluate import sample_records
from raxe_fast.training.finetune_data import Classes
from raxe_fast.training.finetune_eval import Evaluator, score_rows
from raxe_fast.training.finetune_model import Network, choose_device, choose_precision
from raxe_fast.training.finetune_output import HEADS_FILE, LinearHeads
from raxe_fast.training.folds import Holdout
from raxe_fast.training.metrics import count, recall_at_fpr, roc_auc
from records import dump_record

BATCH_TOKENS = 8192


def figures(texts: Evaluator, source: EncoderSource, classes: Classes) -> dict[str, Any]:
    """AUC, best F1 and recall at 1 % false positives, of the worst window of each text."""
    device = choose_device("auto")
    precision = choose_precision("auto", device)
    network = Network(source, classes, device=device, precision=precision, seed=1, dropout=0.0)
    logits, _ = score_rows(network, texts.rows, BATCH_TOKENS)
    scores = np.full(len(texts.label), -np.inf)
    np.maximum.at(scores, texts.owner, logits)
    at_one = recall_at_fpr(texts.label, scores, 0.01)
    return {
        "auc": roc_auc(texts.label, scores),
        "f1": max(_f1(texts.label, scores)),
        "recall_at_1": None if at_one is None else at_one[0],
    }


def _f1(labels: np.ndarray[Any, Any], scores: np.ndarray[Any, Any]) -> Iterator[float]:
    for limit in np.quantile(scores, np.linspace(0.5, 0.99, 99)):
        yield count(labels, scores >= limit).f1 or 0.0


def table(rows: Sequence[dict[str, Any]]) -> Table:
    found = Table(title="Made smaller, without training", title_justify="left")
    for name in ("variant", "MB", "mult. of layers", "AUC", "best F1", "recall at 1 %"):
        found.add_column(name, justify="left" if name == "variant" else "right")
    for row in rows:
        found.add_row(
            row["variant"], f"{row['megabytes']:.1f}", f"{row['multiplications']:.0%}",
            f"{row['auc']:.4f}", f"{row['f1']:.4f}", f"{row['recall_at_1']:.1%}",
        )  # fmt: skip
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--encoder", type=Path, required=True, help="a model or tuned directory")
    parser.add_argument("--corpus", type=Path, required=True, help="JSON Lines with labels (dev)")
    parser.add_argument(
        "--texts",
        type=int,
        default=2000,
        help="how many of them, drawn at random (default %(default)s)",
    )
    parser.add_argument("--output", type=Path, required=True, help="the record")
    options = parser.parse_args(arguments)
    if not options.corpus.is_file():
        parser.error(f"there is no corpus at {options.corpus}")
    console = Console(width=None if Console().is_terminal else 120)
    records = sample_records(read_corpus(options.corpus).records, options.texts, seed=0)
    record: dict[str, Any] = {
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "load": load_average(),
        "texts": len(records),
    }
    rows: list[dict[str, Any]] = []
    with encoder_folder(options.encoder, Holdout(4, 10)) as folder:
        source = load_source(folder)
        heads = LinearHeads.load(Path(folder) / HEADS_FILE)
        texts = Evaluator(records, prepare_tokenizer(source)[0].decode(), 256, None, 0)
        classes = Classes(heads.families, heads.subfamilies)
        for found in variants(source):
            size = {"megabytes": found.megabytes, "multiplications": found.multiplications}
            rows.append({"variant": found.name} | size | figures(texts, found.source, classes))
            console.print(f"{found.name}: best F1 {rows[-1]['f1']:.4f}")
    record["variants"] = rows
    console.print(table(rows))
    options.output.write_text(dump_record(record), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
