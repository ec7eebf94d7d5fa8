"""Exceptions raised by raxe_fast.

Every error derives from :class:`RaxeFastError`. Scanning a text never raises one of these for
the text itself: a failed scan is a :class:`~raxe_fast.result.ScanResult` with a status. They are
raised while a model is loaded, trained or packed, and for unreadable corpora.
"""

from __future__ import annotations

from os import PathLike, fspath

__all__ = [
    "CorpusError",
    "EncoderError",
    "ModelError",
    "ModelFormatError",
    "ModelIntegrityError",
    "ModelNotFoundError",
    "ModelSelfTestError",
    "RaxeFastError",
    "WordListError",
]


class RaxeFastError(Exception):
    """Base class of all errors of this package."""


class _LocatedError(RaxeFastError):
    """A message and the file that it is about, which goes before it."""

    def __init__(self, message: str, *, path: str | PathLike[str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.path: str | None = None if path is None else fspath(path)

    def _where(self) -> str:
        return self.path or ""

    def __str__(self) -> str:
        where = self._where()
        return f"{where}: {self.message}" if where else self.message


class ModelError(_LocatedError):
    """A model could not be used.

    ``path`` is the model directory or archive (``None`` when unknown) and ``member`` the file
    inside it that is at fault (``None`` when the model as a whole is).
    """

    def __init__(
        self,
        message: str,
        *,
        path: str | PathLike[str] | None = None,
        member: str | None = None,
    ) -> None:
        super().__init__(message, path=path)
        self.member = member

    def _where(self) -> str:
        return ": ".join(part for part in (self.path, self.member) if part)


class ModelNotFoundError(ModelError, FileNotFoundError):
    """There is no model at the given path, or no model of the given name is installed."""


class ModelFormatError(ModelError):
    """A model file is truncated, missing or malformed, or of a version this package cannot read."""


class ModelIntegrityError(ModelError):
    """A model file differs in size or SHA-256 from what the manifest records."""


class ModelSelfTestError(ModelError):
    """The loaded model does not reproduce the results stored when it was built."""


class EncoderError(RaxeFastError):
    """The ONNX encoder could not be loaded or failed to run."""


class CorpusError(_LocatedError):
    """A corpus file is malformed. ``path`` and ``line`` (1-based) say where, if known."""

    def __init__(
        self,
        message: str,
        *,
        path: str | PathLike[str] | None = None,
        line: int | None = None,
    ) -> None:
        super().__init__(message, path=path)
        self.line = line

    def _where(self) -> str:
        return ":".join(str(part) for part in (self.path, self.line) if part is not None)


class WordListError(_LocatedError):
    """A list of words to leave out is unreadable or holds what is not one word, or a word twice.
    ``path`` is its file, if that is at fault."""
