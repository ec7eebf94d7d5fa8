"""Makes the members of a model directory from what was fitted."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raxe_fast import _core
from raxe_fast.parts import decode_triggers
from raxe_fast.training.calibrate import CalibrationFit
from raxe_fast.training.clusters import build_clusters
from raxe_fast.training.corpus import Corpus
from raxe_fast.training.embed import Embedded, EncoderFiles, TextEmbedder
from raxe_fast.training.heads import Heads
from raxe_fast.training.metrics import Floats, Ints
from raxe_fast.training.package import SELF_TEST_TEXTS, save_selftest
from raxe_fast.training.parity import head_parity
from raxe_fast.training.train_data import Labels, Split, worst_by_text
from raxe_fast.training.trigger_weights import fired_counts, fit_weights
from raxe_fast.treelite_reader import read_treelite

__all__ = ["HEADS", "fit_triggers", "manifest_base", "parity_of", "worst_probability",
           "write_clusters", "write_selftest"]  # fmt: skip

HEADS = ("binary", "family", "subfamily")
BENIGN = "benign"


def _trigger_set(compiled: dict[str, Any]) -> _core.TriggerSet:
    triggers = decode_triggers(json.dumps(compiled).encode())
    return _core.TriggerSet([(item.phrases, item.literals, item.weight) for item in triggers])


def fit_triggers(train: Corpus) -> tuple[dict[str, Any], _core.TriggerSet]:
    """triggers.json with weights learned from the training texts, and its matcher."""
    from raxe_fast.training.triggers import compile_triggers, load_source

    source = load_source()
    compiled = compile_triggers(source)
    entries: list[dict[str, Any]] = compiled["triggers"]
    unweighted = _trigger_set(compiled)
    attack, benign = fired_counts(
        train.texts,
        np.array([record.label for record in train.records], dtype=np.int64),
        lambda text: (int(match[0]) for match in unweighted.match(text)),
        len(entries),
    )
    compiled = compile_triggers(source, fit_weights(entries, attack, benign))
    return compiled, _trigger_set(compiled)


def worst_probability(heads: Heads, split: Split) -> Floats:
    """(texts,) highest P(attack) over the windows of each text; 0 for a text without windows."""
    probability = np.asarray(heads.binary.predict_proba(split.embedded.vectors))[:, 1]
    return worst_by_text(probability, split)


def _first_windows(embedded: Embedded, texts: Ints) -> Ints:
    """Row of the first window of each of `texts`, which must have one."""
    return np.searchsorted(embedded.owner, texts)


def write_clusters(
    folder: Path,
    train: Split,
    heads: Heads,
    *,
    attack_clusters: int,
    benign_clusters: int,
    seed: int,
) -> dict[str, int]:
    """Writes clusters.npz; how many attack and harmless clusters it holds."""
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
        attack_clusters=attack_clusters,
        benign_clusters=benign_clusters,
        seed=seed,
    )
    found.save(str(folder / "clusters.npz"))
    return {"attack": found.n_attack, "benign": len(found.labels) - found.n_attack}


def write_selftest(folder: Path, files: EncoderFiles) -> None:
    """Writes selftest.npz through the encoder and the heads as they stand in `folder`."""
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


def manifest_base(
    model_id: str,
    files: EncoderFiles,
    labels: Labels,
    heads: Heads,
    thresholds: dict[str, dict[str, float]],
) -> dict[str, Any]:
    """manifest.json without its file list."""
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


def parity_of(
    folder: Path, heads: Heads, vectors: NDArray[np.float32], fit: CalibrationFit, block: float
) -> dict[str, Any]:
    """Parity of the three heads on (N, H) vectors; `block` is the balanced threshold."""
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
