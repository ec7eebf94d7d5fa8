"""The reference pipeline, written the way such detectors usually are.

Default ONNX Runtime session, `tokenizers`, NumPy masked mean pooling, three scikit-learn random
forests, Python substring triggers over the lower-cased text, nearest clusters by a NumPy dot
product, and a plain dict as the result. It runs on the same encoder, forests, triggers and
clusters as raxe-fast, so that only the way of running them differs.

What it leaves out is in its favour: no windows (a text past `max_tokens` is cut off), no
normalisation, no spans, no word gaps or alternatives in triggers, no deadline, no policy.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from model_files import forest_arrays
from sklearn_forests import sklearn_forest

Floats = npt.NDArray[np.float32]

# The length of BERT's and MiniLM's position table, for encoder files that do not say.
POSITIONS = 512


def masked_mean_pool(tokens: Floats, mask: npt.NDArray[np.int64]) -> Floats:
    """(B, S, H) token embeddings and (B, S) mask -> (B, H) unit rows: the sentence-transformers
    recipe, as its model cards print it."""
    expanded = np.broadcast_to(mask[:, :, None], tokens.shape).astype(np.float32)
    summed = np.sum(tokens * expanded, axis=1)
    counts = np.clip(expanded.sum(axis=1), 1e-9, None)
    pooled = summed / counts
    norms = np.linalg.norm(pooled, axis=1, keepdims=True)
    result: Floats = pooled / np.clip(norms, 1e-12, None)
    return result


class SubstringTriggers:
    """Keyword triggers as `substring in text.lower()`, one substring per phrase.

    A phrase's substring is the first word (or prefix) of each of its elements, joined by spaces.
    """

    def __init__(self, triggers: list[dict[str, Any]]) -> None:
        self.triggers: list[tuple[str, str, str, float, tuple[str, ...]]] = []
        for trigger in triggers:
            substrings = [
                " ".join((element["words"] or element["prefixes"])[0] for element in phrase)
                for phrase in trigger["phrases"]
            ]
            substrings += trigger["literals"]
            self.triggers.append(
                (
                    trigger["name"],
                    trigger["family"],
                    trigger["severity"],
                    float(trigger["weight"]),
                    tuple(dict.fromkeys(substrings)),
                )
            )

    @property
    def substrings(self) -> int:
        """How many substrings are looked for."""
        return sum(len(entry[4]) for entry in self.triggers)

    def match(self, text: str) -> list[dict[str, Any]]:
        """The triggers with a substring in `text`, with the first such substring's position."""
        lowered = text.lower()
        matches = []
        for name, family, severity, weight, substrings in self.triggers:
            for substring in substrings:
                if substring in lowered:
                    begin = lowered.index(substring)
                    matches.append(
                        {
                            "name": name,
                            "family": family,
                            "severity": severity,
                            "weight": weight,
                            "begin": begin,
                            "end": begin + len(substring),
                        }
                    )
                    break
        return matches


class ReferenceScorer:
    """Everything after the encoder: pooling, three forests, triggers, clusters, result."""

    def __init__(self, model: Path) -> None:
        self.manifest = json.loads((model / "manifest.json").read_text(encoding="utf-8"))
        self.heads = {
            name: sklearn_forest(forest_arrays(model, name))
            for name in ("binary", "family", "subfamily")
        }
        triggers = json.loads((model / "triggers.json").read_text(encoding="utf-8"))
        self.triggers = SubstringTriggers(triggers["triggers"])
        calibration = json.loads((model / "calibration.json").read_text(encoding="utf-8"))
        self.weights, self.bias = calibration["weights"], calibration["bias"]
        self.isotonic = calibration.get("isotonic")
        with np.load(model / "clusters.npz", allow_pickle=False) as clusters:
            self.n_attack = int(clusters["n_attack"])
            self.centroids = np.ascontiguousarray(clusters["centroids"][: self.n_attack])
            self.cluster_labels = [str(label) for label in clusters["labels"]]
        self.families: list[str] = self.manifest["labels"]["families"]
        self.subfamilies = [entry["name"] for entry in self.manifest["labels"]["subfamilies"]]
        self.block = float(self.manifest["thresholds"]["balanced"]["block"])

    def score(self, text: str, tokens: Floats, mask: npt.NDArray[np.int64]) -> dict[str, Any]:
        """tokens: (1, S, H); mask: (1, S). All three forests run for every text."""
        embedding = masked_mean_pool(tokens, mask)
        binary = float(self.heads["binary"].predict_proba(embedding)[0, 1])
        family = self.heads["family"].predict_proba(embedding)[0]
        subfamily = self.heads["subfamily"].predict_proba(embedding)[0]
        matches = self.triggers.match(text)
        rules = 1.0 - math.prod(1.0 - match["weight"] for match in matches)
        score = self.calibrate(binary, rules)
        similar: list[dict[str, Any]] = []
        if self.n_attack:
            cosines = self.centroids @ embedding[0]
            similar = [
                {"label": self.cluster_labels[i], "cosine": float(cosines[i])}
                for i in np.argsort(-cosines)[:3]
            ]
        threat = score >= self.block
        return {
            "is_threat": threat,
            "score": score,
            "family": self.families[int(np.argmax(family))] if threat else None,
            "subfamily": self.subfamilies[int(np.argmax(subfamily))] if threat else None,
            "family_scores": dict(zip(self.families, family.tolist(), strict=True)),
            "triggers": matches,
            "similar": similar,
            "reasons": [f"{match['name']} ({match['severity']})" for match in matches],
        }

    def calibrate(self, binary: float, rules: float) -> float:
        """The calibrated probability, as calibration.json defines it."""
        clipped = min(max(binary, 1e-4), 1.0 - 1e-4)
        evidence = (math.log(clipped / (1.0 - clipped)), rules)
        logit = self.bias + sum(w * e for w, e in zip(self.weights, evidence, strict=True))
        probability = 1.0 / (1.0 + math.exp(-logit))
        if self.isotonic:
            probability = float(np.interp(probability, self.isotonic["x"], self.isotonic["y"]))
        return probability


class ReferencePipeline:
    """text -> dict, one text at a time.

    model: a model directory. encoder: another ONNX file with token embeddings as first output
    (for example an fp32 export), or None for the model's own. threads: None leaves ONNX Runtime's
    default (one thread per core); a number sets intra_op_num_threads and nothing else.
    """

    def __init__(
        self,
        model: Path,
        *,
        encoder: Path | None = None,
        threads: int | None = None,
        scorer: ReferenceScorer | None = None,
    ) -> None:
        import onnxruntime
        from tokenizers import Tokenizer

        self.scorer = scorer or ReferenceScorer(model)
        options = onnxruntime.SessionOptions()
        if threads is not None:
            options.intra_op_num_threads = threads
        path = encoder or model / self.scorer.manifest["encoder"]["file"]
        self.session = onnxruntime.InferenceSession(
            str(path), sess_options=options, providers=["CPUExecutionProvider"]
        )
        self.inputs = [entry.name for entry in self.session.get_inputs()]
        self.tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
        limit = self.session.get_modelmeta().custom_metadata_map.get("max_positions", "")
        self.max_tokens = int(limit) if limit.isdecimal() else POSITIONS
        self.tokenizer.enable_truncation(max_length=self.max_tokens)

    def scan(self, text: str) -> dict[str, Any]:
        """The verdict on one text; reads at most `max_tokens` tokens."""
        encoding = self.tokenizer.encode(text)
        ids = np.array([encoding.ids], dtype=np.int64)
        mask = np.array([encoding.attention_mask], dtype=np.int64)
        feeds = {}
        for name in self.inputs:
            if "mask" in name:
                feeds[name] = mask
            elif "type" in name:
                feeds[name] = np.zeros_like(ids)
            else:
                feeds[name] = ids
        tokens = self.session.run(None, feeds)[0]
        return self.scorer.score(text, tokens, mask)
