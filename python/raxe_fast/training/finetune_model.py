"""The network that is fine-tuned: an encoder, mean pooling, three linear heads on the pooled vector
and one on each token; and its losses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from raxe_fast.errors import ModelFormatError
from raxe_fast.training.encoder_source import PAIRS, WEIGHTS, EncoderSource
from raxe_fast.training.finetune_data import Classes
from raxe_fast.training.finetune_options import LossWeights
from raxe_fast.training.finetune_output import (
    EVIDENCE_SPAN,
    HEADS_FILE,
    SCALE,
    LinearHeads,
)
from raxe_fast.training.pairs import pair_rows

__all__ = [
    "Network",
    "choose_device",
    "choose_precision",
    "evidence_loss",
    "multi_task_loss",
    "strongest",
    "with_noise",
]

_POOLED_HEADS = ("binary", "family", "subfamily")
_HEADS = (*_POOLED_HEADS, "evidence")
# Attention over longer rows costs less in torch's fused kernel, over shorter ones without it.
_FUSED_ATTENTION_FROM = 200


class Network:
    """Encoder and heads on one device. ``modules`` holds every parameter; its names are
    ``encoder.*``, ``binary.*``, ``family.*``, ``subfamily.*`` and ``evidence.*``.

    Heads see the unit embedding times SCALE: logits of unit vectors alone could not leave a
    narrow range.
    """

    def __init__(
        self,
        source: EncoderSource,
        classes: Classes,
        *,
        device: str,
        precision: str,
        seed: int,
        dropout: float | None = None,
    ) -> None:
        from transformers import AutoConfig, AutoModel

        torch.manual_seed(seed)
        config = AutoConfig.for_model(source.architecture, **_without_type(source.config))
        if dropout is not None:
            config.hidden_dropout_prob = config.attention_probs_dropout_prob = dropout
        factory: Any = AutoModel  # untyped
        encoder: nn.Module = factory.from_config(config, add_pooling_layer=False).float()
        if source.pair_rows:
            # Under the name that its checkpoint has for it.
            parent, table, _ = PAIRS.split(".")
            pairs = nn.Embedding(source.pair_rows, source.hidden)
            encoder.get_submodule(parent).add_module(table, pairs)
        _load(encoder, source)
        self.source = source
        self.classes = classes
        self.device = torch.device(device)
        if self.device.type == "cuda":
            # cuDNN's attention makes a plan for every new shape, 40 to 60 ms each (an H100), and
            # nearly every batch has one; torch's own kernels take 0.3 ms.
            torch.backends.cuda.enable_cudnn_sdp(False)
        self.precision = precision
        outputs = (1, len(classes.families), len(classes.subfamilies), 1)
        self.modules = nn.ModuleDict({"encoder": encoder})
        for name, size in zip(_HEADS, outputs, strict=True):
            self.modules[name] = nn.Linear(source.hidden, size)
        self._continue_heads()
        self.modules.to(self.device)

    def _continue_heads(self) -> None:
        """Takes over the heads of an encoder that was tuned before, where they have the same
        classes and the same width: random ones would undo some of it."""
        path = Path(self.source.path) / HEADS_FILE
        if not path.is_file():
            return
        heads = LinearHeads.load(path)
        known = (self.classes.families, self.classes.subfamilies)
        if (heads.families, heads.subfamilies) != known:
            return
        if len(heads.binary_weight) != self.source.hidden:
            return
        arrays = {
            "binary": (heads.binary_weight[None], np.array([heads.binary_bias])),
            "family": (heads.family_weight, heads.family_bias),
            "subfamily": (heads.subfamily_weight, heads.subfamily_bias),
            "evidence": (heads.evidence_weight[None], np.array([heads.evidence_bias])),
        }
        with torch.no_grad():
            for name, (weight, bias) in arrays.items():
                layer: Any = self.modules[name]
                layer.weight.copy_(torch.from_numpy(np.array(weight, np.float32)))
                layer.bias.copy_(torch.from_numpy(np.array(bias, np.float32)))

    def autocast(self) -> AbstractContextManager[Any]:
        if self.precision == "fp32":
            return nullcontext()
        # Typed by hand: where torch is absent mypy sees Any.
        context: AbstractContextManager[Any] = torch.autocast(self.device.type, torch.bfloat16)
        return context

    def states(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, S, H) float32 token embeddings of (B, S) token ids; ``mask`` is 1 on tokens, 0 on
        padding."""
        encoder: Any = self.modules["encoder"]
        if self.device.type == "cpu":
            fused = ids.shape[1] >= _FUSED_ATTENTION_FROM
            encoder.config._attn_implementation = "sdpa" if fused else "eager"
        read: dict[str, Tensor] = {"input_ids": ids}
        if self.source.pair_rows:
            tables = encoder.embeddings
            rows = tables.pair_embeddings(pair_rows(ids, self.source.pair_rows))
            read = {"inputs_embeds": tables.word_embeddings(ids) + rows}
        with self.autocast():
            states: Tensor = encoder(**read, attention_mask=mask).last_hidden_state
        return states.float()

    def pool(self, states: Tensor, mask: Tensor) -> Tensor:
        """(B, H) unit vectors of token embeddings, pooled like the core: the mean over all tokens,
        [CLS] and [SEP] included."""
        weights = mask.unsqueeze(-1).float()
        mean = (states * weights).sum(1) / weights.sum(1)
        return F.normalize(mean, dim=-1)

    def embed(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, H) float32 unit vectors of (B, S) token ids."""
        return self.pool(self.states(ids, mask), mask)

    def evidence(self, states: Tensor) -> Tensor:
        """(B, S) logits that a token belongs to an attack."""
        logits: Tensor = self.modules["evidence"](states)
        return logits.squeeze(-1)

    def logits(self, embedding: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Binary (B,), family (B, F) and subfamily (B, S) logits of unit vectors."""
        scaled = SCALE * embedding
        binary, family, subfamily = (self.modules[name](scaled) for name in _POOLED_HEADS)
        return binary.squeeze(-1), family, subfamily

    def batch(self, rows: Sequence[NDArray[np.integer[Any]]]) -> tuple[Tensor, Tensor]:
        """(B, S) int64 ids, padded on the right, and their mask, on the device."""
        width = max(len(row) for row in rows)
        ids = np.full((len(rows), width), int(self.source.number("pad_token_id", 0)), np.int64)
        mask = np.zeros((len(rows), width), np.int64)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
            mask[i, : len(row)] = 1
        return torch.from_numpy(ids).to(self.device), torch.from_numpy(mask).to(self.device)

    def parameter_groups(self, rate: float, head_rate: float, decay: float) -> list[dict[str, Any]]:
        """Encoder matrices (with decay), encoder vectors and heads (without), for an optimiser."""
        encoder = list(self.modules["encoder"].parameters())
        heads = [p for name in _HEADS for p in self.modules[name].parameters()]
        return [
            {"params": [p for p in encoder if p.ndim > 1], "lr": rate, "weight_decay": decay},
            {"params": [p for p in encoder if p.ndim <= 1], "lr": rate, "weight_decay": 0.0},
            {"params": heads, "lr": head_rate, "weight_decay": 0.0},
        ]

    def encoder_weights(self) -> dict[str, NDArray[np.float32]]:
        """The encoder's tensors under the names its checkpoint had, float32."""
        state = self.modules["encoder"].state_dict()
        return {name: _array(value) for name, value in state.items() if name in self.source.weights}

    def linear_heads(self) -> LinearHeads:
        state = {name: _array(value) for name, value in self._head_state()}
        return LinearHeads(
            scale=SCALE,
            binary_weight=state["binary.weight"][0],
            binary_bias=float(state["binary.bias"][0]),
            family_weight=state["family.weight"],
            family_bias=state["family.bias"],
            subfamily_weight=state["subfamily.weight"],
            subfamily_bias=state["subfamily.bias"],
            evidence_weight=state["evidence.weight"][0],
            evidence_bias=float(state["evidence.bias"][0]),
            families=self.classes.families,
            subfamilies=self.classes.subfamilies,
        )

    def _head_state(self) -> Iterator[tuple[str, Tensor]]:
        for head in _HEADS:
            for name, value in self.modules[head].state_dict().items():
                yield f"{head}.{name}", value


def _array(value: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = value.detach().cpu().float().contiguous().numpy()
    return array


def _without_type(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key != "model_type"}


def _load(encoder: nn.Module, source: EncoderSource) -> None:
    state = {
        name: torch.from_numpy(np.array(value, dtype=np.float32))
        for name, value in source.weights.items()
        if np.issubdtype(value.dtype, np.floating)
    }
    missing = encoder.load_state_dict(state, strict=False).missing_keys
    if missing:
        raise ModelFormatError(
            f"there is no tensor {missing[0]!r}", path=source.path, member=WEIGHTS
        )


def strongest(evidence: Tensor, mask: Tensor) -> Tensor:
    """(B,) the highest mean of EVIDENCE_SPAN tokens in a row, of shorter rows the mean of all;
    as the core computes it. ``evidence`` and ``mask`` are (B, S)."""
    kept = evidence * mask
    count = mask.sum(1)
    if evidence.shape[1] < EVIDENCE_SPAN:
        return kept.sum(1) / count
    means = kept.unfold(1, EVIDENCE_SPAN, 1).mean(-1)
    inside = mask[:, EVIDENCE_SPAN - 1 :] > 0
    highest = means.masked_fill(~inside, -torch.inf).amax(1)
    return torch.where(count < EVIDENCE_SPAN, kept.sum(1) / count, highest)


def evidence_loss(
    peak: Tensor, evidence: Tensor, label: Tensor, places: Tensor, weights: LossWeights
) -> Tensor:
    """Binary cross-entropy of the (B,) strongest passages of texts, and of the tokens of windows
    whose payload's place is known (``places`` as finetune_data.payload_places gives them)."""
    target = label.float() * (1 - weights.smoothing) + weights.smoothing / 2
    loss = weights.peak * F.binary_cross_entropy_with_logits(peak, target)
    known = places >= 0
    if bool(known.any()):
        inside = places[known].float()
        tokens = F.binary_cross_entropy_with_logits(evidence[known], inside)
        loss = loss + weights.tokens * tokens
    return loss


def with_noise(ids: Tensor, mask: Tensor, share: float) -> Tensor:
    """(B, S) ids, of which about ``share`` were replaced by ids from elsewhere in the batch;
    special tokens at either end and padding stay."""
    if share <= 0:
        return ids
    inner = mask.clone()
    inner[:, 0] = 0
    inner[torch.arange(len(mask), device=mask.device), mask.sum(1) - 1] = 0
    chosen = (torch.rand(ids.shape, device=ids.device) < share) & (inner > 0)
    pool = ids[inner > 0]
    if not len(pool):
        return ids
    drawn = pool[torch.randint(len(pool), ids.shape, device=ids.device)]
    return torch.where(chosen, drawn, ids)


def multi_task_loss(
    network: Network,
    embedding: Tensor,
    label: Tensor,
    family: Tensor,
    subfamily: Tensor,
    weights: LossWeights,
) -> Tensor:
    """Binary cross-entropy, cross-entropy of family and subfamily, and supervised contrastive
    loss over the subfamilies of the batch (texts of one subfamily attract each other)."""
    binary, families, subfamilies = network.logits(embedding)
    target = label.float() * (1 - weights.smoothing) + weights.smoothing / 2
    loss = F.binary_cross_entropy_with_logits(binary, target)
    loss = loss + weights.family * F.cross_entropy(families, family)
    loss = loss + weights.subfamily * F.cross_entropy(subfamilies, subfamily)
    similarity = embedding @ embedding.T / weights.temperature
    itself = torch.eye(len(embedding), dtype=torch.bool, device=embedding.device)
    likelihood = similarity.masked_fill(itself, -1e4).log_softmax(1)
    same = (subfamily[:, None] == subfamily[None]) & ~itself
    partners = same.sum(1)
    some = partners > 0
    if bool(some.any()):
        mean = (likelihood * same).sum(1)[some] / partners[some]
        loss = loss - weights.contrastive * mean.mean()
    return loss


def choose_device(wanted: str) -> str:
    """``auto`` is cuda where there is one, else cpu. Raises ValueError for cuda without one."""
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError("there is no CUDA device, or torch was built without CUDA")
    if not wanted.startswith(("cpu", "cuda")):
        raise ValueError(f"device must be auto, cpu or cuda, not {wanted!r}")
    return wanted


def choose_precision(wanted: str, device: str) -> str:
    """``auto`` is bf16 where the device computes in it, else fp32. On a CPU without such
    instructions bf16 works and is slower. Raises ValueError for another name."""
    if wanted not in ("auto", "bf16", "fp32"):
        raise ValueError(f"precision must be auto, bf16 or fp32, not {wanted!r}")
    if wanted != "auto":
        return wanted
    if device.startswith("cuda"):
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if _cpu_has_bf16() else "fp32"


def _cpu_has_bf16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    except OSError:
        return False
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(flags))
