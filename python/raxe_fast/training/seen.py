"""Which training texts a fine-tuned encoder has seen, and which of them heads learn from.

An encoder separates its own training texts better than any it will meet; a forest that learnt from
these would trust that. So the score is learnt from what the encoder has not seen.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from raxe_fast.training.corpus import Record
from raxe_fast.training.folds import Holdout
from raxe_fast.training.own_data import is_own

__all__ = ["Seen"]


@dataclass(frozen=True, slots=True)
class Seen:
    """``holdout``: the fold that tuning left out, None for an encoder that was not tuned.
    ``own_sources``: sources of our own texts that it has learnt from. ``again``: beginnings of
    those that heads learn from all the same. ``new_corpus``: nothing of the corpus was seen."""

    holdout: Holdout | None
    own_sources: frozenset[str]
    again: tuple[str, ...] = ()
    new_corpus: bool = False

    def check(self, records: Iterable[Record]) -> None:
        """Raises ValueError for a name in ``again`` that no source of our own texts begins with."""
        names = {record.source for record in records if is_own(record)}
        for name in self.again:
            if not any(source.startswith(name) for source in names):
                raise ValueError(f"no texts of our own are of a source {name!r}")

    def held(self, record: Record) -> bool:
        """Left out of tuning on purpose, or of a corpus that tuning never met."""
        if self.new_corpus and not is_own(record):
            return True
        return self.holdout is not None and self.holdout.contains(record)

    def learnt_again(self, record: Record) -> bool:
        """Seen, and learnt from all the same."""
        return (
            is_own(record)
            and record.source in self.own_sources
            and record.source.startswith(self.again)
            and not self.held(record)
        )

    def unseen(self, record: Record) -> bool:
        """Not seen, or taken not to have been."""
        new = is_own(record) and record.source not in self.own_sources
        return new or self.learnt_again(record) or self.held(record)
