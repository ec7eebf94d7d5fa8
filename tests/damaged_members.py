"""What loading must say of a member that is missing, truncated or altered."""

from __future__ import annotations

from pathlib import Path

import pytest

from raxe_fast import load_model
from raxe_fast.errors import ModelFormatError, ModelIntegrityError


def check_damage(folder: Path, member: str) -> None:
    """Damages a member of a model in three ways and puts it back each time."""
    data = (folder / member).read_bytes()
    altered = bytearray(data)
    altered[len(data) // 2] ^= 1
    for content, error, message in (
        (data[:-1], ModelIntegrityError, "size"),
        (bytes(altered), ModelIntegrityError, "SHA-256"),
        (None, ModelFormatError, "missing"),
    ):
        (folder / member).unlink()
        if content is not None:
            (folder / member).write_bytes(content)
        with pytest.raises(error, match=message) as caught:
            load_model(folder)
        assert caught.value.member == member
        (folder / member).write_bytes(data)
