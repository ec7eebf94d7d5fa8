"""Compile a model's forests at build time: Treelite -> tl2cgen -> C files and a C++ registry.

Called by Heads.cmake. tl2cgen writes one translation unit per tree, a nested `if` with one
addition per class in every leaf. This script keeps the trees statement by statement and makes
three changes, each exact:

- The test for a missing value goes. Every feature is present, and tl2cgen marks a missing one by
  low bits that a float32 widened to double never has, so the test could never fire.
- Thresholds become float32, rounded down: for a float32 x, `x <= t` holds exactly when
  `x <= (t rounded down to float32)`. Features are read where they lie, without widening.
- A leaf returns its row in a table of leaf vectors. The rows are added afterwards, in double and
  in tree order, as tl2cgen's own additions are. Equal rows are stored once.

A line that is not one of the few forms tl2cgen writes for such models stops the build: nothing is
skipped or guessed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import struct
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_NUMBER = r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?"
_TEST = rf"\(data\[(?P<feature>\d+)\]\.fvalue <= \(double\)(?P<threshold>{_NUMBER})\)"
_MISSING = (
    r"(?:!\(data\[(?P<a>\d+)\]\.missing != -1\) \|\||\(data\[(?P<b>\d+)\]\.missing != -1\) &&)"
)
# Hints come from the counts of training rows, where a forest has them.
_CONDITION = re.compile(
    rf"if \( *(?:(?P<hint>LIKELY|UNLIKELY)\( +)?{_MISSING} {_TEST}(?: \))? ?\) {{"
)
_LEAF = re.compile(rf"result\[(?P<output>\d+)\] \+= (?P<value>{_NUMBER});")
_HEAD_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_FLOAT32_MAX = 3.4028234663852886e38
_MAX_TREES = 1024  # kMaxCompiledTrees in compiled_heads.hpp


class GenerationError(Exception):
    """A model cannot be compiled exactly; the message says why."""


def floor_float32(value: float) -> float:
    """The greatest float32 not above ``value``."""
    if value > _FLOAT32_MAX:
        return _FLOAT32_MAX
    if value < -_FLOAT32_MAX:
        raise GenerationError(f"the threshold {value!r} is below float32's range")
    nearest: float = struct.unpack("<f", struct.pack("<f", value))[0]
    if nearest <= value:
        return nearest
    bits: int = struct.unpack("<i", struct.pack("<f", nearest))[0]
    if nearest == 0.0:
        bits = struct.unpack("<i", b"\x01\x00\x00\x80")[0]  # the first float32 below zero
    elif nearest > 0.0:
        bits -= 1
    else:
        bits += 1
    below: float = struct.unpack("<f", struct.pack("<i", bits))[0]
    return below


@dataclass
class LeafTable:
    """The distinct leaf vectors of a forest, in order of first use."""

    rows: dict[tuple[str, ...], int] = field(default_factory=dict)

    def row(self, vector: Iterable[float]) -> int:
        # Keyed by C literal: 0.0 and -0.0 stay apart.
        return self.rows.setdefault(tuple(value.hex() for value in vector), len(self.rows))


def translate_tree(source: str, tree: int, n_features: int, n_outputs: int, leaves: LeafTable
                   ) -> list[str]:  # fmt: skip
    """The body of a C function of ``const float* x`` that returns the leaf's row."""
    lines = [line for line in (raw.strip() for raw in source.splitlines()) if line]
    head = ['#include "header.h"', f"void predict_unit{tree}(union Entry* data, double* result) {{"]
    if lines[:2] != head or lines[-1:] != ["}"]:
        raise GenerationError(f"tree {tree}: the translation unit has an unknown form")
    out: list[str] = []
    vector: list[float] = []
    depth = conditions = leaf_count = 0
    for line in lines[2:-1]:
        if leaf := _LEAF.fullmatch(line):
            if int(leaf["output"]) != len(vector):
                raise GenerationError(f"tree {tree}: leaf outputs out of order: {line!r}")
            vector.append(float(leaf["value"]))
            if len(vector) == n_outputs:
                out.append("  " * (depth + 1) + f"return {leaves.row(vector)}u;")
                vector = []
                leaf_count += 1
            continue
        if vector:
            raise GenerationError(f"tree {tree}: a leaf has too few outputs")
        if condition := _CONDITION.fullmatch(line):
            feature = int(condition["feature"])
            if feature != int(condition["a"] or condition["b"]) or feature >= n_features:
                raise GenerationError(f"tree {tree}: bad feature in {line!r}")
            test = f"x[{feature}] <= {floor_float32(float(condition['threshold'])).hex()}f"
            hint = condition["hint"]
            out.append(
                "  " * (depth + 1) + (f"if ({hint}({test})) {{" if hint else f"if ({test}) {{")
            )
            depth += 1
            conditions += 1
        elif line in ("} else {", "}"):
            out.append("  " * depth + line)
            depth -= line == "}"
        elif line != "unsigned int tmp;":
            raise GenerationError(f"tree {tree}: unexpected line {line!r}")
    if vector or depth != 0 or leaf_count != conditions + 1:
        raise GenerationError(
            f"tree {tree}: {conditions} tests and {leaf_count} leaves are no tree"
        )
    return out


def check_supported(model: Any) -> tuple[int, int]:
    """(n_features, n_outputs) of a random forest whose leaves hold one vector of averages."""
    header = model.get_header_accessor()

    def get(name: str) -> Any:
        value = header.get_field(name)
        return value if isinstance(value, str) else value.tolist()

    wanted = {
        "num_target": [1], "average_tree_output": [1], "threshold_type": [3],
        "leaf_output_type": [3], "postprocessor": "identity_multiclass",
    }  # fmt: skip
    for name, value in wanted.items():
        if get(name) != value:
            raise GenerationError(f"{name} is {get(name)!r}; only {value!r} is supported")
    if any(get("base_scores")):
        raise GenerationError("the base scores are not zero")
    n_outputs = int(get("num_class")[0])
    if get("leaf_vector_shape") != [1, n_outputs]:
        raise GenerationError(f"leaves of shape {get('leaf_vector_shape')} are not supported")
    if not 1 <= model.num_tree <= _MAX_TREES:
        raise GenerationError(f"{model.num_tree} trees; 1 to {_MAX_TREES} are supported")
    return int(get("num_feature")[0]), n_outputs


_UNIT = """\
#include <stdint.h>
#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)
{functions}
void {symbol}(const float* x, uint32_t* row) {{
{calls}
}}
"""

# noinline: the compiler's passes are superlinear in the size of a function.
_TREE = """
static __attribute__((noinline)) uint32_t tree{tree}(const float* x) {{
{body}
}}
"""

_MAIN = """\
#include <stdint.h>
{declarations}

const double {symbol}_leaf_values[{size}] = {{
{values}
}};

void {symbol}_leaf_rows(const float* x, uint32_t* row) {{
{calls}
}}
"""


def generate_head(name: str, path: Path, out: Path, units: int) -> dict[str, Any]:
    """Write ``units`` + 1 C files for one forest; returns what the registry says of it."""
    import tl2cgen
    import treelite

    if not _HEAD_NAME.fullmatch(name):
        raise GenerationError("not a name")
    model = treelite.Model.deserialize(str(path))
    n_features, n_outputs = check_supported(model)
    n_trees = model.num_tree
    leaves = LeafTable()
    with tempfile.TemporaryDirectory() as scratch:
        tl2cgen.generate_c_code(model, scratch, {"parallel_comp": n_trees})
        sources = [Path(scratch, f"tu{tree}.c").read_text("ascii") for tree in range(n_trees)]
    bodies = [
        translate_tree(source, tree, n_features, n_outputs, leaves)
        for tree, source in enumerate(sources)
    ]

    symbol = f"raxe_fast_head_{name}"
    for unit in range(units):
        trees = range(unit * n_trees // units, (unit + 1) * n_trees // units)
        _write(
            out / f"{name}_{unit}.c",
            _UNIT.format(
                symbol=f"{symbol}_unit{unit}",
                functions="".join(_TREE.format(tree=t, body="\n".join(bodies[t])) for t in trees),
                calls="\n".join(f"  row[{t}] = tree{t}(x);" for t in trees),
            ),
        )
    names = [f"{symbol}_unit{unit}" for unit in range(units)]
    _write(
        out / f"{name}_main.c",
        _MAIN.format(
            symbol=symbol,
            declarations="\n".join(
                f"void {unit}(const float* x, uint32_t* row);" for unit in names
            ),
            size=len(leaves.rows) * n_outputs,
            values="\n".join(",".join(row) + "," for row in leaves.rows),
            calls="\n".join(f"  {unit}(x, row);" for unit in names),
        ),
    )
    return {
        "symbol": symbol,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "n_features": n_features,
        "n_outputs": n_outputs,
        "n_trees": n_trees,
    }


_REGISTRY = """\
// Written by cmake/generate_heads.py.
#include "raxe_fast/compiled_heads.hpp"

extern "C" {{
{declarations}
}}

namespace raxe_fast {{

std::span<const CompiledHead> compiled_head_registry() noexcept {{
  static const CompiledHead heads[] = {{
{entries}
  }};
  return heads;
}}

}}  // namespace raxe_fast
"""


def _registry(heads: list[dict[str, Any]]) -> str:
    return _REGISTRY.format(
        declarations="\n".join(
            "void {symbol}_leaf_rows(const float* x, std::uint32_t* row);\n"
            "extern const double {symbol}_leaf_values[];".format_map(head)
            for head in heads
        ),
        entries="\n".join(
            '      {{"{sha256}",\n       {n_features}, {n_outputs}, {n_trees}, '
            "{symbol}_leaf_rows, {symbol}_leaf_values}},".format_map(head)
            for head in heads
        ),
    )


def _write(path: Path, text: str) -> None:
    path.write_text(text, "ascii", newline="\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", type=Path, help="unpacked model directory (manifest.json)")
    parser.add_argument("out", type=Path, help="directory for the generated files")
    parser.add_argument("--units", type=int, default=2, help="translation units per head")
    options = parser.parse_args()
    heads: dict[str, Any] = json.loads((options.model / "manifest.json").read_bytes())["heads"]
    options.out.mkdir(parents=True, exist_ok=True)
    registered = []
    for name, spec in heads.items():
        path = options.model / spec["file"]
        try:
            registered.append(generate_head(name, path, options.out, options.units))
        except GenerationError as error:
            print(f"generate_heads: {path.name}: {error}", file=sys.stderr)
            return 1
    _write(options.out / "registry.cpp", _registry(registered))
    return 0


if __name__ == "__main__":
    sys.exit(main())
