"""raxe-fast: fast local detection of prompt injection and other attacks on language models.

>>> import raxe_fast
>>> raxe_fast.scan("What is the capital of France?").action
'allow'

Importing this package is cheap: ONNX Runtime, tokenizers and the model are loaded by the first
scan (or by :class:`Scanner`), nothing is downloaded, and no environment variable is touched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raxe_fast.api import scan
from raxe_fast.errors import (
    CorpusError,
    EncoderError,
    ModelError,
    ModelFormatError,
    ModelIntegrityError,
    ModelNotFoundError,
    ModelSelfTestError,
    RaxeFastError,
)
from raxe_fast.policy import Policy
from raxe_fast.result import ScanResult, Similar, Trigger

if TYPE_CHECKING:
    from raxe_fast.model import Model, load_model
    from raxe_fast.scanner import Scanner

    __version__: str

__all__ = [
    "CorpusError",
    "EncoderError",
    "Model",
    "ModelError",
    "ModelFormatError",
    "ModelIntegrityError",
    "ModelNotFoundError",
    "ModelSelfTestError",
    "Policy",
    "RaxeFastError",
    "ScanResult",
    "Scanner",
    "Similar",
    "Trigger",
    "__version__",
    "load_model",
    "scan",
]

# These pull in NumPy and the compiled core; they load on first use.
_LAZY = {
    "Model": "raxe_fast.model",
    "Scanner": "raxe_fast.scanner",
    "load_model": "raxe_fast.model",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "__version__":
        value = import_module("raxe_fast._core").build_info()["version"]
    elif name in _LAZY:
        value = getattr(import_module(_LAZY[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
