"""Writes a sentence encoder as ONNX with fused operators, from its checkpoint, without torch."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx

from raxe_fast.errors import EncoderError, ModelFormatError
from raxe_fast.training import encoder_graph_bert, encoder_graph_mpnet
from raxe_fast.training.encoder_graph_common import (
    INPUT,
    OUTPUT,
    GraphBuilder,
    GraphOptions,
    build_model,
)
from raxe_fast.training.encoder_source import TOKENIZER, EncoderSource, load_source
from raxe_fast.training.leave_out import pre_tokenizer_steps

ENCODER_FILE = "encoder.onnx"
TOKENIZER_FILE = "tokenizer.json"
INFO_FILE = "export.json"

_GRAPHS: dict[str, Any] = {"bert": encoder_graph_bert, "mpnet": encoder_graph_mpnet}


@dataclass(frozen=True, slots=True)
class ExportInfo:
    """What was exported; the same as export.json. Sizes in bytes, operator counts by name."""

    base: str
    architecture: str
    precision: str
    weight_bits: int | None
    hidden_size: int
    layers: int
    heads: int
    intermediate_size: int
    vocab_size: int
    max_positions: int
    max_tokens: int
    pair_rows: int
    cls_id: int
    sep_id: int
    pad_id: int
    input: str
    output: str
    files: dict[str, dict[str, Any]]
    operators: dict[str, int]
    optimised_operators: dict[str, int]


def export_encoder(
    source: str | Path | EncoderSource,
    output_dir: str | Path,
    precision: str = "int8",
    *,
    weight_bits: int = 7,
) -> ExportInfo:
    """Export an encoder to ``output_dir``: encoder.onnx, tokenizer.json and export.json.

    ``source`` is what :func:`~raxe_fast.training.encoder_source.resolve_encoder` accepts, or an
    encoder already read. ``precision`` is ``fp32``, ``fp16`` (weights stored as half, computed in
    float32) or ``int8``; ``weight_bits`` (7 or 8) concerns INT8 alone. The same input gives the
    same bytes. The graph takes ``input_ids`` int64 (batch, sequence) and gives
    ``token_embeddings`` float32 (batch, sequence, hidden). It has no attention mask, so all rows
    of a batch must be texts of the same token count.

    Raises ModelNotFoundError, ModelFormatError (a file of the source is missing, malformed or
    unsupported), EncoderError (ONNX Runtime does not keep the fused operators), ValueError (bad
    precision or bits).
    """
    options = GraphOptions(precision=precision, weight_bits=weight_bits)
    encoder = source if isinstance(source, EncoderSource) else load_source(source)
    tokenizer_bytes, specials = prepare_tokenizer(encoder)
    model_bytes = build_encoder(encoder, options)
    graph = _GRAPHS[encoder.architecture]
    operators = count_operators(onnx.load_from_string(model_bytes))
    check_operators(operators, encoder, options, "exported")
    optimised = optimised_operators(model_bytes)
    check_operators(optimised, encoder, options, "optimised")
    positions = graph.max_positions(encoder)
    files = {ENCODER_FILE: model_bytes, TOKENIZER_FILE: tokenizer_bytes}
    info = ExportInfo(
        base=encoder.name,
        architecture=encoder.architecture,
        precision=precision,
        weight_bits=weight_bits if precision == "int8" else None,
        hidden_size=encoder.hidden,
        layers=encoder.layers,
        heads=encoder.heads,
        intermediate_size=encoder.count("intermediate_size"),
        vocab_size=int(encoder.tensor("embeddings.word_embeddings.weight").shape[0]),
        max_positions=positions,
        max_tokens=min(encoder.max_tokens or positions, positions),
        pair_rows=encoder.pair_rows,
        cls_id=specials[0],
        sep_id=specials[1],
        pad_id=int(encoder.number("pad_token_id", 0)),
        input=INPUT,
        output=OUTPUT,
        files={
            name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
            for name, data in files.items()
        },
        operators=operators,
        optimised_operators=optimised,
    )
    target = Path(output_dir)
    target.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (target / name).write_bytes(data)
    (target / INFO_FILE).write_text(json.dumps(asdict(info), indent=2) + "\n", encoding="utf-8")
    return info


def build_encoder(encoder: EncoderSource, options: GraphOptions) -> bytes:
    """The serialised ONNX model of an encoder, the same bytes for the same input."""
    graph = GraphBuilder(options)
    _GRAPHS[encoder.architecture].build(encoder, graph)
    limit = _GRAPHS[encoder.architecture].max_positions(encoder)
    metadata = {
        "base": encoder.name,
        "max_positions": str(limit),
        "precision": options.precision,
    }
    model = build_model(graph, encoder.hidden, metadata)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def count_operators(model: onnx.ModelProto) -> dict[str, int]:
    """Number of nodes by operator, sorted by name."""
    return dict(sorted(Counter(node.op_type for node in model.graph.node).items()))


def optimised_operators(data: bytes) -> dict[str, int]:
    """Operator counts of a serialised model as ONNX Runtime executes it on this CPU.

    Raises EncoderError where the model does not load.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        optimised = Path(folder) / "optimised.onnx"
        options.optimized_model_filepath = str(optimised)
        try:
            onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's own classes derive from Exception directly
            raise EncoderError(f"ONNX Runtime rejects the exported encoder: {error}") from error
        return count_operators(onnx.load(str(optimised)))


def check_operators(
    counts: dict[str, int], encoder: EncoderSource, options: GraphOptions, stage: str
) -> None:
    """Raise EncoderError unless the operators that make the encoder fast are all there.

    Fusions fail, and undo each other, silently; the cost only shows as latency.
    """
    layers = encoder.layers
    expected = {
        "MultiHeadAttention": layers,
        "LayerNormalization": 2 * layers + 1,
        "Sum": 2 * layers + 1,
        "SkipLayerNormalization": 0,
        "DynamicQuantizeMatMul": 6 * layers if options.precision == "int8" else 0,
        "MatMul": 0 if options.precision == "int8" else 6 * layers,
        "Gelu": layers if options.precision == "int8" else 0,
        "BiasGelu": 0 if options.precision == "int8" else layers,
    }
    wrong = [
        f"{counts.get(operator, 0)} {operator} instead of {number}"
        for operator, number in expected.items()
        if counts.get(operator, 0) != number
    ]
    if wrong:
        raise EncoderError(f"the {stage} encoder has {', '.join(wrong)}")


def prepare_tokenizer(encoder: EncoderSource) -> tuple[bytes, tuple[int, int]]:
    """tokenizer.json as shipped, and the ids it puts around an empty text.

    Truncation and padding go: windows replace both. Words longer than WordPiece accepts are cut
    into pieces it does accept. It would turn such a word, base64 for one, into a single [UNK], and
    whatever is hidden in it would never reach the encoder. Every other word is read as before, and
    words that the source leaves out stay left out. What was prepared comes out as it is.
    """
    from tokenizers import Tokenizer

    content = {**encoder.tokenizer, "truncation": None, "padding": None}
    limit = content.get("model", {}).get("max_input_chars_per_word")
    if isinstance(limit, int) and content.get("pre_tokenizer"):
        content["pre_tokenizer"] = _cutting(content["pre_tokenizer"], limit)
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    try:
        ids = Tokenizer.from_str(text).encode("").ids
    except Exception as error:  # tokenizers raises bare Exception
        raise ModelFormatError(
            f"is not a tokenizer: {error}", path=encoder.path, member=TOKENIZER
        ) from error
    if len(ids) != 2:
        raise ModelFormatError(
            f"puts {len(ids)} special tokens around a text, expected 2",
            path=encoder.path,
            member=TOKENIZER,
        )
    return text.encode(), (ids[0], ids[1])


def _cutting(pre_tokenizer: Any, limit: int) -> Any:
    """The steps of a pre_tokenizer in one Sequence that ends with cutting words into pieces of at
    most ``limit`` characters."""
    steps = pre_tokenizer_steps(pre_tokenizer)
    last = steps[-1] if steps else None
    length = None
    if isinstance(last, dict) and last.get("type") == "FixedLength":
        length = last.get("length")
    if not isinstance(length, int) or length > limit:
        steps.append({"type": "FixedLength", "length": limit})
    return {"type": "Sequence", "pretokenizers": steps}
