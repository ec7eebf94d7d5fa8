"""Makes the members of a model directory from what was fitted."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from raxe_fast import _core
from raxe_fast.parts import TriggerInfo, decode_triggers
from raxe_fast.training.calibrate import CalibrationFit, clipped_logit
from raxe_fast.training.clusters import build_clusters
from raxe_fast.training.corpus import Corpus
from raxe_fast.training.embed import EncoderFiles, TextEmbedder
from raxe_fast.training.feature_parts import Rows
from raxe_fast.training.heads import Heads
from raxe_fast.training.metrics import Ints
from raxe_fast.training.package import SELF_TEST_TEXTS, save_selftest
from raxe_fast.training.parity import head_parity
from raxe_fast.training.train_data import Labels, Split
from raxe_fast.training.trigger_weights import fired_counts, fit_weights

__all__ = ["HEADS", "fit_triggers", "manifest_base", "parity_of", "trigger_infos",
           "write_clusters", "write_selftest"]  # fmt: skip

HEADS = ("binary", "family", "subfamily")
BENIGN = "benign"


def _trigger_set(compiled: dict[str, Any]) -> _core.TriggerSet:
    infos = trigger_infos(compiled)
    return _core.TriggerSet([(item.phrases, item.literals, item.weight) for item in infos])


def trigger_infos(compiled: dict[str, Any]) -> tuple[TriggerInfo, ...]:
    """The entries of triggers.json as the runtime decodes them."""
    return decode_triggers(json.dumps(compiled).encode())


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


def _first_windows(owner: Ints, texts: Ints) -> Ints:
    """Row of the first window of each of `texts`, which must have one."""
    return np.searchsorted(owner, texts)


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
    embedded, owner = train.embedded, train.owner
    labels = train.labels
    have = np.unique(owner)
    benign = have[labels[have] == 0]
    rows = np.concatenate([heads.worst_rows, _first_windows(owner, benign)])
    owners = owner[rows].tolist()
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


def write_selftest(
    folder: Path,
    files: EncoderFiles,
    features: _core.Features | None = None,
    triggers: _core.TriggerSet | None = None,
) -> None:
    """Writes selftest.npz through the encoder and the heads as they stand in `folder`."""
    embedder = TextEmbedder(files)
    ids = [embedder.token_ids(text)[0] for text in SELF_TEST_TEXTS]
    described = [embedder.described(window) for window in ids]
    embeddings = np.stack([vector for vector, _ in described])
    rows = None
    if features is not None and triggers is not None:
        rows = np.stack(
            [
                features.row(vector, evidence, text, 0, len(text), triggers.match(text))
                for (vector, evidence), text in zip(described, SELF_TEST_TEXTS, strict=True)
            ]
        )
    outputs = []
    for name in HEADS:
        data = (folder / f"heads/{name}.treelite").read_bytes()
        forest = _core.Forest.treelite(data)
        seen = embeddings if rows is None else rows[:, : forest.n_features]
        outputs.append(forest.predict(np.ascontiguousarray(seen)))
    binary, family, subfamily = outputs
    save_selftest(folder / "selftest.npz", ids, embeddings, binary, family, subfamily, rows)


def manifest_base(
    model_id: str,
    files: EncoderFiles,
    labels: Labels,
    heads: Heads,
    thresholds: dict[str, dict[str, float]],
    sizes: dict[str, int] | None = None,
    tuned: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """manifest.json without its file list. ``tuned`` says what a fine-tuned encoder has seen, so
    that fine-tuning can go on from the model."""
    names = ("base", "architecture", "precision", "hidden_size", "layers", "vocab_size", "input",
             "output", "cls_id", "sep_id", "pad_id")  # fmt: skip
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
            "max_tokens": files.max_tokens,
            "overlap_tokens": files.overlap_tokens,
            **({"pair_rows": pairs} if (pairs := files.info.get("pair_rows")) else {}),
            "backend": files.backend,
            **({"tuned": tuned} if tuned else {}),
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
        "features": [
            {"name": name, "size": size}
            for name, size in (sizes or {"embedding": files.hidden_size}).items()
        ],
        # Every text that any preset warns about gets its family.
        "detail_threshold": min(preset["warn"] for preset in thresholds.values()),
        "thresholds": thresholds,
    }


def parity_of(
    folder: Path, heads: Heads, rows: Rows, fit: CalibrationFit, block: float
) -> dict[str, Any]:
    """Parity of the three heads on the rows they see; `block` is the balanced threshold."""
    # The forest probability that alone, all other evidence being 0, reaches the block threshold.
    grid = np.linspace(0, 1, 100001)
    alone = np.zeros((len(grid), len(fit.weights)))
    alone[:, 0] = clipped_logit(grid)
    over = np.flatnonzero(fit(alone) >= block)
    threshold = float(grid[over[0]]) if len(over) else 0.5
    forests = {"binary": heads.binary, "family": heads.family, "subfamily": heads.subfamily}
    result: dict[str, Any] = {
        name: head_parity(
            forest,
            folder / f"heads/{name}.treelite",
            rows.binary if name == "binary" else rows.full,
            threshold if name == "binary" else None,
        )
        for name, forest in forests.items()
    }
    result["binary"]["verdict_threshold"] = threshold
    return result
