"""The reference pipeline, written the way such detectors usually are.

Default ONNX Runtime session, `tokenizers`, NumPy masked mean pooling, three scikit-learn random
forests, Python substring triggers over the lower-cased text, nearest clusters by a NumPy dot
product, and a plain dict as the result. It runs on the same encoder, forests, triggers and
clusters as raxe-fast, so that only the way of running them differs. Where the model has
features.npz, its forests see them here, too (reference_features.py), and the score is made of the
same six pieces of evidence.

What it leaves out is in its favour: no decoding of encoded parts, no windows (a text past
`max_tokens` is cut off), no normalisation and no word gaps or alternatives in triggers, no places
of findings, no deadline, no policy.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from model_files import forest_arrays
from reference_features import FEATURES_FILE, SIDES, Evidence, ReferenceFeatures
from sklearn_forests import sklearn_forest

Floats = npt.NDArray[np.float32]

# What it does otherwise than raxe-fast, for the records.
NOTES = (
    "no decoding: encoded parts of a text are not looked at, which raxe-fast does and pays for",
    "no windows: a text past max_tokens is cut off, raxe-fast reads all of it",
    "substring triggers",
    "all three forests run for every text, in raxe-fast those of family and subfamily only from "
    "the detail threshold on",
)
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
        self.features: ReferenceFeatures | None = None
        if FEATURES_FILE in self.manifest["files"]:
            self.features = ReferenceFeatures(model, self.families)
        self.subfamilies = [entry["name"] for entry in self.manifest["labels"]["subfamilies"]]
        self.block = float(self.manifest["thresholds"]["balanced"]["block"])

    def about(self) -> dict[str, Any]:
        """How it does its work; for the records."""
        return {
            "forests": "scikit-learn forests rebuilt from the model's Treelite files",
            "features": "the embedding alone" if self.features is None else SIDES,
            "substrings": self.triggers.substrings,
            "leaves_out": list(NOTES),
        }

    def score(
        self,
        text: str,
        tokens: Floats,
        mask: npt.NDArray[np.int64],
        span: tuple[int, int] | None = None,
    ) -> dict[str, Any]:
        """tokens: (1, S, H); mask: (1, S); span: the characters [begin, end) that the tokens come
        from, None: all. All three forests run for every text."""
        return self.judge(text, tokens, mask, span, self.triggers.match(text))

    def rows(
        self,
        text: str,
        tokens: Floats,
        mask: npt.NDArray[np.int64],
        span: tuple[int, int] | None,
        matches: Sequence[Mapping[str, Any]],
    ) -> tuple[Floats, Evidence | None]:
        """What the family and subfamily forests see, (1, size), and evidence where there is more
        than the embedding. The binary forest sees the beginning of it."""
        embedding = masked_mean_pool(tokens, mask)
        if self.features is None:
            return embedding, None
        covered = text if span is None else text[span[0] : span[1]]
        return self.features.row(covered, embedding[0], tokens[0], mask[0], matches)

    def judge(
        self,
        text: str,
        tokens: Floats,
        mask: npt.NDArray[np.int64],
        span: tuple[int, int] | None,
        matches: list[dict[str, Any]],
    ) -> dict[str, Any]:
        """`score` with the matches given."""
        row, evidence = self.rows(text, tokens, mask, span, matches)
        binary_row = row[:, : self.heads["binary"].n_features_in_]
        binary = float(self.heads["binary"].predict_proba(binary_row)[0, 1])
        family = self.heads["family"].predict_proba(row)[0]
        subfamily = self.heads["subfamily"].predict_proba(row)[0]
        rules = 1.0 - math.prod(1.0 - match["weight"] for match in matches)
        score = self.calibrate(binary, rules, evidence)
        embedding = row[0, : self.centroids.shape[1]]
        similar: list[dict[str, Any]] = []
        if self.n_attack:
            cosines = self.centroids @ embedding
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

    def calibrate(self, binary: float, rules: float, evidence: Evidence | None) -> float:
        """The calibrated probability, as calibration.json defines it, of a text of one window."""
        clipped = min(max(binary, 1e-4), 1.0 - 1e-4)
        inputs = [math.log(clipped / (1.0 - clipped)), rules]
        if evidence is not None:
            inputs += [*evidence, 0.0]  # the last one: log of the number of windows
        logit = self.bias + sum(w * e for w, e in zip(self.weights, inputs, strict=True))
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
        tokens, mask, span = self.encode(text)
        return self.scorer.score(text, tokens, mask, span)

    def encode(self, text: str) -> tuple[Floats, npt.NDArray[np.int64], tuple[int, int]]:
        """Token embeddings (1, S, H), mask (1, S), and the characters that were read."""
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
        return tokens, mask, covered(encoding)


def covered(encoding: Any) -> tuple[int, int]:
    """The characters [begin, end) of its text that an encoding's tokens come from, the special ones
    at both ends left out."""
    last = len(encoding.ids) - 2
    if last < 1:
        return 0, 0
    return encoding.token_to_chars(1)[0], encoding.token_to_chars(last)[1]
