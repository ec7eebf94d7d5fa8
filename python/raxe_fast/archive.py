"""Reading the files of a model: from a directory, or from a ``.raxe`` zip without unpacking it.

Nothing here trusts the files: names must stay inside the model, sizes are bounded before memory is
taken, and a zip member is never inflated past its declared size.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Protocol

from raxe_fast.errors import ModelFormatError, ModelIntegrityError, ModelNotFoundError
from raxe_fast.manifest import MANIFEST, FileSpec, is_safe_member

__all__ = ["ModelFiles", "open_files", "read_checked", "read_zip_member"]

MAX_MEMBERS = 256
MAX_MANIFEST_BYTES = 1 << 20
MAX_MEMBER_BYTES = 1 << 30
# Text and forests deflate well, but nothing honest reaches this; a bomb starts near 1000.
MAX_RATIO = 200
_CHUNK = 1 << 20
# Nothing else is ever written, and each method has errors of its own.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class ModelFiles(Protocol):
    """The members of one model. ``path`` is what messages call it."""

    path: str

    def read(self, name: str, limit: int) -> bytes:
        """Content of member ``name``, at most ``limit`` bytes.

        Raises ``ModelFormatError`` if it is missing, larger, or cannot be read.
        """

    def close(self) -> None: ...

    def __enter__(self) -> ModelFiles: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class _Closing:
    def close(self) -> None:
        """Nothing to release."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class _DirectoryFiles(_Closing):
    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._root = path

    def __enter__(self) -> _DirectoryFiles:
        return self

    def read(self, name: str, limit: int) -> bytes:
        if not is_safe_member(name):
            raise ModelFormatError("unsafe name", path=self.path, member=name)
        try:
            with open(self._root / name, "rb") as file:
                data = file.read(limit + 1)
        except FileNotFoundError:
            raise ModelFormatError("file is missing", path=self.path, member=name) from None
        except OSError as error:
            raise ModelFormatError(
                f"cannot be read: {error.strerror or error}", path=self.path, member=name
            ) from error
        if len(data) > limit:
            raise ModelFormatError(f"larger than {limit} bytes", path=self.path, member=name)
        return data


class _ZipFiles(_Closing):
    def __init__(self, path: Path) -> None:
        self.path = str(path)
        try:
            self._zip = zipfile.ZipFile(path)
        except OSError as error:
            raise ModelFormatError(
                f"cannot be read: {error.strerror or error}", path=path
            ) from error
        except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise ModelFormatError(
                f"not a model archive, or truncated: {error}", path=path
            ) from error
        try:
            self._members = self._check(self._zip.infolist())
        except ModelFormatError:
            self._zip.close()
            raise

    def __enter__(self) -> _ZipFiles:
        return self

    def close(self) -> None:
        self._zip.close()

    def _check(self, infos: list[zipfile.ZipInfo]) -> Mapping[str, zipfile.ZipInfo]:
        if len(infos) > MAX_MEMBERS:
            raise ModelFormatError(f"more than {MAX_MEMBERS} members", path=self.path)
        members: dict[str, zipfile.ZipInfo] = {}
        for info in infos:
            # orig_filename: zipfile cuts `filename` at a NUL.
            name = info.orig_filename
            if not is_safe_member(name):
                raise ModelFormatError(f"unsafe member name {name!r}", path=self.path)
            if name in members:
                raise ModelFormatError("member appears twice", path=self.path, member=name)
            if info.compress_type not in _METHODS:
                raise ModelFormatError(_unknown_method(info), path=self.path, member=name)
            if info.file_size > MAX_RATIO * max(info.compress_size, 1):
                raise ModelFormatError(
                    f"inflates from {info.compress_size} to {info.file_size} bytes: refused",
                    path=self.path,
                    member=name,
                )
            members[name] = info
        return members

    def read(self, name: str, limit: int) -> bytes:
        info = self._members.get(name)
        if info is None:
            raise ModelFormatError("member is missing", path=self.path, member=name)
        try:
            return read_zip_member(self._zip, info, limit)
        except ValueError as error:
            raise ModelFormatError(str(error), path=self.path, member=name) from error


def _unknown_method(info: zipfile.ZipInfo) -> str:
    return f"compressed by method {info.compress_type}: only stored and deflated members are read"


def read_zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, limit: int) -> bytes:
    """Inflate one member, at most ``limit`` bytes of it, in steps of bounded memory; one that is
    stored as it is cannot grow, and is read at once.

    Raises ``ValueError`` if it is larger, damaged, encrypted or neither stored nor deflated.
    """
    if info.compress_type not in _METHODS:
        raise ValueError(_unknown_method(info))
    if info.file_size > limit:
        raise ValueError(f"{info.file_size} bytes, at most {limit} expected")
    stored = info.compress_type == zipfile.ZIP_STORED and info.file_size == info.compress_size
    step = max(info.file_size, 1) if stored else _CHUNK
    chunks = []
    try:
        with archive.open(info) as member:
            while chunk := member.read(step):
                chunks.append(chunk)
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        OSError,
        RuntimeError,
        NotImplementedError,
    ) as error:
        raise ValueError(f"damaged: {error or 'truncated'}") from error
    return b"".join(chunks)


def open_files(path: Path) -> ModelFiles:
    """Open a model directory or archive; use as a context manager.

    Raises ``ModelNotFoundError`` if there is nothing at ``path`` and ``ModelFormatError`` if it is
    neither a directory nor a readable archive with safe member names.
    """
    if path.is_dir():
        return _DirectoryFiles(path)
    if not path.exists():
        raise ModelNotFoundError("no such model", path=path)
    return _ZipFiles(path)


def read_manifest(files: ModelFiles) -> bytes:
    """The raw manifest."""
    return files.read(MANIFEST, MAX_MANIFEST_BYTES)


def read_checked(files: ModelFiles, name: str, spec: FileSpec) -> bytes:
    """Content of a member whose size and SHA-256 match ``spec``.

    Raises ``ModelFormatError`` if it is missing or cannot be read and ``ModelIntegrityError`` if
    it differs.
    """
    if spec.size > MAX_MEMBER_BYTES:
        raise ModelFormatError(
            f"{spec.size} bytes, more than the limit of {MAX_MEMBER_BYTES}",
            path=files.path,
            member=name,
        )
    data = files.read(name, MAX_MEMBER_BYTES)
    if len(data) != spec.size:
        raise ModelIntegrityError(
            f"size is {len(data)} bytes, the manifest says {spec.size}: truncated or altered",
            path=files.path,
            member=name,
        )
    digest = hashlib.sha256(data).hexdigest()
    if digest != spec.sha256:
        raise ModelIntegrityError(
            f"SHA-256 is {digest}, the manifest says {spec.sha256}: altered",
            path=files.path,
            member=name,
        )
    return data
