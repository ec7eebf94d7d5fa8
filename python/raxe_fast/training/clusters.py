"""clusters.npz: centroids of known attacks and of harmless texts, for "similar to" and novelty.

k-means within each subfamily, so that each cluster has one label. A label carries the words that
set the cluster's texts apart, and only words that occur in several of them: it can never
reproduce a training text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["ClusterSet", "allot", "build_clusters", "characteristic_words"]

_WORD = re.compile(r"(?<!\w)[a-z]{3,20}(?!\w)")
_MIN_TEXTS_PER_WORD = 3
_WORDS_READ = 400


@dataclass(frozen=True, slots=True)
class ClusterSet:
    """(K, H) float32 unit centroids, attack clusters first, with their names."""

    centroids: NDArray[np.float32]
    n_attack: int
    labels: list[str]
    families: list[str]
    subfamilies: list[str]

    def save(self, path: str) -> None:
        """Writes clusters.npz (no object arrays, so it loads with allow_pickle=False)."""
        np.savez_compressed(
            path,
            centroids=self.centroids,
            n_attack=np.array(self.n_attack, dtype=np.int64),
            labels=np.array(self.labels, dtype=np.str_),
            families=np.array(self.families, dtype=np.str_),
            subfamilies=np.array(self.subfamilies, dtype=np.str_),
        )


def allot(sizes: dict[str, int], total: int, min_size: int) -> dict[str, int]:
    """Clusters per group: in proportion to the square root of its size, at least one each.

    The root keeps a large group from taking nearly all. No group gets more than size // min_size.
    """
    roots = {name: size**0.5 for name, size in sizes.items()}
    scale = total / max(sum(roots.values()), 1e-9)
    return {
        name: max(1, min(round(root * scale), sizes[name] // min_size))
        for name, root in roots.items()
    }


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower()[: _WORDS_READ * 8]))


def characteristic_words(
    members: Sequence[str], background: Counter[str], total: int, count: int = 3
) -> list[str]:
    """The words that are frequent in `members` and rare among `total` texts (class TF-IDF).

    `background` counts the texts that hold each word. Only words of at least three members count.
    """
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    inside = Counter(word for text in members for word in _words(text))
    scored = [
        (n / len(members) * float(np.log((1 + total) / (1 + background[word]))), word)
        for word, n in inside.items()
        if n >= _MIN_TEXTS_PER_WORD and word not in ENGLISH_STOP_WORDS
    ]
    scored.sort(key=lambda pair: (-pair[0], pair[1]))
    return [word for score, word in scored[:count] if score > 0]


def _unit(rows: NDArray[np.floating]) -> NDArray[np.float32]:
    wide = rows.astype(np.float64)
    norms = np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)
    unit: NDArray[np.float32] = (wide / norms).astype(np.float32)
    return unit


def build_clusters(
    vectors: NDArray[np.float32],
    texts: Sequence[str],
    names: Sequence[tuple[str, str]],
    *,
    attack_clusters: int = 80,
    benign_clusters: int = 40,
    min_size: int = 8,
    max_members: int = 4000,
    seed: int = 0,
) -> ClusterSet:
    """Clusters of (N, H) unit vectors with their texts and (family, subfamily) names.

    The family "benign" is the harmless class. Groups larger than `max_members` are sampled.
    """
    from sklearn.cluster import KMeans

    random = np.random.default_rng(seed)
    groups: dict[tuple[str, str], list[int]] = {}
    for i, name in enumerate(names):
        groups.setdefault(name, []).append(i)
    background = Counter(word for text in texts for word in _words(text))
    centroids: list[NDArray[np.float32]] = []
    labels: list[str] = []
    found: list[tuple[str, str]] = []
    n_attack = 0
    for attack, budget in ((True, attack_clusters), (False, benign_clusters)):
        side = {n: members for n, members in groups.items() if (n[0] != "benign") == attack}
        shares = allot({"\0".join(n): len(m) for n, m in side.items()}, budget, min_size)
        for name in sorted(side):
            members = np.array(side[name])
            if len(members) > max_members:
                members = np.sort(random.choice(members, max_members, replace=False))
            rows = vectors[members]
            k = shares["\0".join(name)]
            means = KMeans(k, n_init=2, max_iter=50, random_state=seed).fit(rows)
            for j in range(k):
                own = members[means.labels_ == j]
                if len(own) < min(min_size, len(members)):
                    continue
                centre = _unit(vectors[own].mean(axis=0, keepdims=True))[0]
                words = characteristic_words([texts[i] for i in own], background, len(texts))
                centroids.append(centre)
                labels.append(" / ".join(name) + (": " + ", ".join(words) if words else ""))
                found.append(name)
        if attack:
            n_attack = len(centroids)
    return ClusterSet(
        np.stack(centroids) if centroids else np.empty((0, vectors.shape[1]), np.float32),
        n_attack,
        labels,
        [family for family, _ in found],
        [subfamily for _, subfamily in found],
    )
