"""Group-wise folds: texts of one group never stand on both sides of a split.

Heads and calibration are fitted on the fold the encoder was never tuned on; an encoder's
embeddings of its own training texts separate better than those of any text it will meet.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raxe_fast.errors import ModelFormatError
from raxe_fast.training.corpus import Record

__all__ = [
    "FINETUNE_INFO",
    "Holdout",
    "check_holdout",
    "fold_of",
    "group_key",
    "own_sources",
    "restored_from",
    "salted_folds",
    "tuned_from",
]

FINETUNE_INFO = "finetune.json"
_HASHES = ("sha256", "md5")


def group_key(record: Record) -> str:
    """What keeps a record together with its relatives; a record without group stands alone."""
    return record.group or record.text


def fold_of(group: str, folds: int, hash_name: str = "sha256") -> int:
    """Fold of a group, 0 to ``folds - 1``: its digest as a number, modulo ``folds``.

    Raises ValueError for fewer than 2 folds or a hash that is neither sha256 nor md5.
    """
    if folds < 2:
        raise ValueError(f"there must be at least 2 folds, not {folds}")
    if hash_name not in _HASHES:
        raise ValueError(f"hash must be one of {', '.join(_HASHES)}, not {hash_name!r}")
    data = group.encode("utf-8", "surrogatepass")
    return int(hashlib.new(hash_name, data, usedforsecurity=False).hexdigest(), 16) % folds


@dataclass(frozen=True, slots=True)
class Holdout:
    """The fold an encoder has not seen; ``fold`` None means that it has seen all.

    Raises ValueError for a fold that does not exist.
    """

    fold: int | None
    folds: int
    hash_name: str = "sha256"

    def __post_init__(self) -> None:
        if self.fold is None:
            return
        fold_of("", self.folds, self.hash_name)
        if not 0 <= self.fold < self.folds:
            raise ValueError(f"hold-out fold must be from 0 to {self.folds - 1}, not {self.fold}")

    def contains(self, record: Record) -> bool:
        """Whether the encoder has not seen this record."""
        if self.fold is None:
            return False
        return fold_of(group_key(record), self.folds, self.hash_name) == self.fold

    def split(self, records: Iterable[Record]) -> tuple[list[Record], list[Record]]:
        """(seen, held out), each in order."""
        seen: list[Record] = []
        held: list[Record] = []
        for record in records:
            (held if self.contains(record) else seen).append(record)
        return seen, held

    def to_dict(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def read(cls, encoder_dir: Path | str) -> Holdout:
        """The hold-out of a fine-tuned encoder, from its finetune.json.

        Raises ModelFormatError where the file is missing or says nothing about it.
        """
        with _reading(encoder_dir, "names no hold-out fold") as info:
            return cls(**info["holdout"])

    @classmethod
    def find(cls, encoder: Path | str) -> Holdout | None:
        """The hold-out of a fine-tuned encoder; None for an encoder that was not fine-tuned here,
        or was without one. Raises as `read` does for a finetune.json that cannot be understood."""
        if not _is_tuned(encoder):
            return None
        holdout = cls.read(encoder)
        return None if holdout.fold is None else holdout


def salted_folds(salt: str, records: Sequence[Record], folds: int) -> NDArray[np.int64]:
    """(N,) fold numbers, relatives together, for what is judged out of fold. Salted: the texts that
    an encoder has not seen are one fold of the plain digest, and would all land in one."""
    return np.array([fold_of(f"{salt}:{group_key(r)}", folds) for r in records], dtype=np.int64)


def check_holdout(encoder_dir: Path | str, holdout: Holdout) -> None:
    """Raises ValueError where a fine-tuned encoder has not kept ``holdout``: whoever says that a
    fold is unseen fits heads on it. ModelFormatError for a finetune.json that says nothing."""
    if not _is_tuned(encoder_dir):
        return
    found = Holdout.read(encoder_dir)
    if found != holdout:
        raise ValueError(
            f"the encoder kept {_named(found)} from its tuning, not {_named(holdout)}: go on with "
            "its own"
        )


def _named(holdout: Holdout) -> str:
    if holdout.fold is None:
        return "no fold"
    return f"fold {holdout.fold} of {holdout.folds} ({holdout.hash_name})"


def own_sources(encoder_dir: Path | str) -> frozenset[str]:
    """Sources of the project's own texts that a fine-tuned encoder has learnt from.

    Raises ModelFormatError for a finetune.json that cannot be understood.
    """
    if not _is_tuned(encoder_dir):
        return frozenset()
    with _reading(encoder_dir, "names no texts of our own") as info:
        return frozenset(str(name) for name in info.get("own_sources", ()))


def restored_from(encoder_dir: Path | str) -> str | None:
    """Id of the model that a fine-tuned encoder was taken from; None for any other directory.

    Raises ModelFormatError for a finetune.json that cannot be understood.
    """
    if not _is_tuned(encoder_dir):
        return None
    with _reading(encoder_dir, "names no model") as info:
        model = info.get("restored_from")
        return None if model is None else str(model)


def tuned_from(encoder_dir: Path | str) -> str | None:
    """Name of the encoder that a fine-tuned one began as; None for any other directory.

    Raises ModelFormatError for a finetune.json that does not say.
    """
    if not _is_tuned(encoder_dir):
        return None
    with _reading(encoder_dir, "names no base encoder") as info:
        return str(info["base"])


def _is_tuned(encoder_dir: Path | str) -> bool:
    return (Path(encoder_dir) / FINETUNE_INFO).is_file()


@contextmanager
def _reading(encoder_dir: Path | str, complaint: str) -> Iterator[dict[str, Any]]:
    """The content of finetune.json; whatever is wrong with it is a ModelFormatError."""
    path = Path(encoder_dir)
    try:
        yield json.loads((path / FINETUNE_INFO).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelFormatError(f"{complaint}: {error}", path=path, member=FINETUNE_INFO) from error
