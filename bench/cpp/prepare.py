"""Exports a model into flat files that the C++ microbenchmarks read without ONNX or JSON.

    python bench/cpp/prepare.py OUTPUT_DIR [--model MODEL]

Writes meta.txt (one "key value" per line) and raw little-endian arrays, <name>.bin; the reader is
bench/cpp/model_data.cpp.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from model_files import HEADS, forest_arrays, locate_model
from raxe_fast.feature_data import decode_features
from raxe_fast.manifest import FEATURES_FILE
from reference import covered, masked_mean_pool
from sentences import ATTACK, HARMLESS, HARMLESS_CYRILLIC
from texts import compose

LENGTHS = (64, 256, 1024, 4096, 16384)  # characters
# So many that the branch predictor cannot learn the paths of all of them by heart: with the
# handful of self-test vectors a compiled forest looks three times as fast as it is.
EMBEDDINGS = 1024
EMBEDDING_TOKENS = 24  # at most
LONG = 4  # the longer texts of the fused call have this many times the tokens


class Export:
    """Collects metadata and writes arrays below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.meta: dict[str, object] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def array(self, name: str, values: Any, dtype: str) -> None:
        np.ascontiguousarray(values, dtype=dtype).tofile(self.folder / f"{name}.bin")

    def text(self, key: str, name: str, text: str) -> None:
        """As CPython stores it: 1, 2 or 4 bytes per code point."""
        highest = max(map(ord, text))
        width = 1 if highest < 1 << 8 else 2 if highest < 1 << 16 else 4
        self.array(key, [ord(c) for c in text], f"<u{width}")
        self.meta |= {f"{key}.name": name, f"{key}.width": width}

    def close(self) -> None:
        lines = "".join(f"{key} {value}\n" for key, value in self.meta.items())
        (self.folder / "meta.txt").write_text(lines, encoding="ascii")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def export_heads(export: Export, model: Path, manifest: dict[str, Any]) -> None:
    for head in HEADS:
        arrays = forest_arrays(model, head)
        export.meta[f"{head}.n_features"] = arrays.n_features
        export.meta[f"{head}.n_outputs"] = arrays.n_outputs
        file = manifest["heads"][head]["file"]
        export.meta[f"{head}.sha256"] = manifest["files"][file]["sha256"]
        export.array(f"{head}.tree_offset", arrays.tree_offset, "<i8")
        for name in ("feature", "left", "right", "leaf_index"):
            export.array(f"{head}.{name}", getattr(arrays, name), "<i4")
        for name in ("threshold", "leaf_values"):
            export.array(f"{head}.{name}", getattr(arrays, name), "<f8")


def export_calibration(export: Export, model: Path) -> None:
    data = read_json(model / "calibration.json")
    knots = data.get("isotonic") or {"x": [], "y": []}
    export.meta["calibration.bias"] = repr(float(data["bias"]))
    export.array("calibration.weights", data["weights"], "<f8")
    export.array("calibration.knot_x", knots["x"], "<f8")
    export.array("calibration.knot_y", knots["y"], "<f8")


def export_triggers(export: Export, model: Path) -> None:
    """uint32 stream; every list and string is its length followed by its items."""
    out: list[int] = []

    def strings(values: Sequence[str]) -> None:
        out.append(len(values))
        for value in values:
            out.append(len(value))
            out.extend(map(ord, value))

    triggers = read_json(model / "triggers.json")["triggers"]
    out.append(len(triggers))
    for trigger in triggers:
        out.append(len(trigger["phrases"]))
        for phrase in trigger["phrases"]:
            out.append(len(phrase))
            for element in phrase:
                out.append(element["max_gap"])
                strings(element["words"])
                strings(element["prefixes"])
        strings(trigger["literals"])
    export.array("triggers", out, "<u4")
    export.array("triggers.weights", [trigger["weight"] for trigger in triggers], "<f8")


def export_features(export: Export, model: Path, manifest: dict[str, Any]) -> None:
    """Nothing but `features 0` for a model whose forests see the embedding alone."""
    present = FEATURES_FILE in manifest["files"]
    export.meta["features"] = int(present)
    if not present:
        return
    data = decode_features((model / FEATURES_FILE).read_bytes(), manifest["encoder"]["hidden_size"])
    families = manifest["labels"]["families"]
    export.array("features.linear_weight", data.linear_weight, "<f4")
    export.array("features.linear_bias", data.linear_bias, "<f4")
    export.array("features.passage_weight", data.passage_weight, "<f4")
    export.meta["features.passage_bias"] = repr(data.passage_bias)
    for name, table, scale, bias in (
        ("lexical", data.lexical_table, data.lexical_scale, data.lexical_bias),
        ("labels", data.label_table, data.label_scale, data.label_bias),
    ):
        export.meta[f"features.{name}_bits"] = len(table).bit_length() - 1
        export.array(f"features.{name}_table", table, "<i1")
        export.array(f"features.{name}_scale", scale, "<f4")
        export.array(f"features.{name}_bias", bias, "<f4")
    # As feature_data.core_features: families that the model has not share the last number.
    number = {name: i for i, name in enumerate(families)}
    triggers = read_json(model / "triggers.json")["triggers"]
    export.array(
        "features.trigger_family",
        [number.get(trigger["family"], len(families)) for trigger in triggers],
        "<u4",
    )
    export.meta["features.families"] = len(families) + 1


def fill(sentences: Sequence[str], length: int) -> str:
    joined = " ".join(sentences) + " "
    return (joined * (length // len(joined) + 1))[:length]


def export_texts(export: Export) -> None:
    texts = {f"harmless_{n}": fill(HARMLESS, n) for n in LENGTHS}
    texts |= {f"attack_{n}": fill(ATTACK, n) for n in LENGTHS}
    texts["cyrillic_1024"] = fill(HARMLESS_CYRILLIC, 1024)
    texts["ascii_with_zero_width_1024"] = fill(HARMLESS, 1023) + "\u200b"
    for index, (name, text) in enumerate(texts.items()):
        export.text(f"text{index}", name, text)
    export.meta["texts"] = len(texts)


def export_encoded(export: Export, model: Path, manifest: dict[str, Any], length: int) -> None:
    """Two texts of `length` tokens and two of LONG times as many (at most a window), with the
    encoder's output and the characters that it covers, and EMBEDDINGS embeddings."""
    import onnxruntime

    spec = manifest["encoder"]
    session = onnxruntime.InferenceSession(
        str(model / spec["file"]), providers=["CPUExecutionProvider"]
    )
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))

    def encode(tokens: int, attack: bool, seed: int) -> tuple[str, tuple[int, int], Any]:
        text = compose(tokenizer, tokens, attack=attack, seed=seed)
        encoding = tokenizer.encode(text)
        ids = np.array([encoding.ids], dtype=np.int64)
        return text, covered(encoding), session.run([spec["output"]], {spec["input"]: ids})[0]

    # The names of the shorter ones, which older records hold, stand without their length.
    longer = min(LONG * length, spec["max_tokens"])
    kinds = [("harmless", length, False), ("attack", length, True)]
    if longer > length:
        kinds += [(f"harmless_{longer}", longer, False), (f"attack_{longer}", longer, True)]
    for index, (name, count, attack) in enumerate(kinds):
        text, span, tokens = encode(count, attack, 0)
        key = f"encoded{index}"
        export.text(key, name, text)
        export.meta |= {f"{key}.begin": span[0], f"{key}.end": span[1]}
        export.array(f"{key}.tokens", tokens[0], "<f4")
    export.meta["encoded"] = len(kinds)
    rows = []
    for index in range(EMBEDDINGS):
        tokens = encode(min(EMBEDDING_TOKENS, length), bool(index % 2), index // 2)[2]
        rows.append(masked_mean_pool(tokens, np.ones(tokens.shape[:2], dtype=np.int64))[0])
    export.array("embeddings", np.stack(rows), "<f4")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, metavar="OUTPUT_DIR")
    parser.add_argument("--model", type=Path, help="model directory or .raxe (default: shipped)")
    parser.add_argument("--tokens", type=int, default=64, help="of the fused call's text")
    options = parser.parse_args(arguments)
    export = Export(options.output)
    with locate_model(options.model) as location:
        model = location.directory
        manifest = read_json(model / "manifest.json")
        export.meta["hidden"] = manifest["encoder"]["hidden_size"]
        export.meta["detail_threshold"] = repr(float(manifest["detail_threshold"]))
        export_heads(export, model, manifest)
        export_calibration(export, model)
        export_triggers(export, model)
        export_features(export, model, manifest)
        with np.load(model / "clusters.npz", allow_pickle=False) as clusters:
            export.array("centroids", clusters["centroids"], "<f4")
            export.meta["n_attack"] = int(clusters["n_attack"])
        export_texts(export)
        export_encoded(export, model, manifest, options.tokens)
    export.close()
    print(f"{location.model_id} -> {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
