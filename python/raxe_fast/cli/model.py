"""``raxe-fast model info|verify|pack|unpack|list``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raxe_fast.model import Model

__all__ = ["add_parser", "run"]


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("model", help="show, verify, pack and unpack models")
    actions = parser.add_subparsers(dest="action", metavar="action", required=True)
    actions.add_parser("list", help="models installed with this package")
    for name, summary in (
        ("info", "what a model is made of"),
        ("verify", "check hashes, shapes, forests (compiled and packed) and encoder"),
    ):
        action = actions.add_parser(name, help=summary)
        action.add_argument(
            "model",
            nargs="?",
            help="directory, .raxe archive or installed id (default: the shipped model)",
        )
    action = actions.add_parser("pack", help="a model directory into one .raxe archive")
    action.add_argument("directory")
    action.add_argument("archive")
    action = actions.add_parser("unpack", help="a .raxe archive into a directory")
    action.add_argument("archive")
    action.add_argument("directory")
    for action in actions.choices.values():
        if action.prog.endswith(("pack", "unpack")):
            action.add_argument("--force", action="store_true", help="replace what is there")


def run(args: argparse.Namespace) -> int:
    action = {
        "list": _list,
        "info": _info,
        "verify": _verify,
        "pack": _pack,
        "unpack": _unpack,
    }[args.action]
    return action(args)


def _list(args: argparse.Namespace) -> int:
    from raxe_fast.model import DEFAULT_MODEL, installed_models

    for name, path in installed_models().items():
        print(f"{name}{' (default)' if name == DEFAULT_MODEL else ''}  {path}")
    return 0


def _info(args: argparse.Namespace) -> int:
    from raxe_fast.model import load_model

    _describe(load_model(args.model))
    return 0


def _describe(model: Model) -> None:
    manifest = model.manifest
    encoder = manifest.encoder
    print(f"{model.id} (version {manifest.version}, created {manifest.created})")
    print(f"  path: {model.path}")
    print(
        f"  encoder: {encoder.base}, {encoder.architecture}, {encoder.layers} layers of "
        f"{encoder.hidden_size}, {encoder.precision}; windows of {encoder.max_tokens} tokens, "
        f"overlap {encoder.overlap_tokens}"
    )
    for name, head in manifest.heads.items():
        print(
            f"  {name} forest: {head.trees} trees, {head.outputs} outputs, "
            f"{model.forest_kinds[name]}"
        )
    print(f"  families: {', '.join(manifest.families)}")
    print(f"  subfamilies: {len(manifest.subfamilies)}")
    clusters = model.clusters
    print(
        f"  triggers: {len(model.triggers)}; clusters: {clusters.n_attack} of attacks, "
        f"{len(clusters.labels) - clusters.n_attack} of harmless texts"
    )
    for preset, (block, warn) in manifest.thresholds.items():
        print(f"  policy {preset}: block at {block:.4g}, warn at {warn:.4g}")
    print("  files:")
    for name, spec in sorted(manifest.files.items()):
        print(f"    {name}  {spec.size:,} bytes  sha256 {spec.sha256}")
    print(f"    total {sum(spec.size for spec in manifest.files.values()):,} bytes")


def _verify(args: argparse.Namespace) -> int:
    from raxe_fast import _core
    from raxe_fast.model import load_model
    from raxe_fast.selftest import check_encoder, open_encoder

    model = load_model(args.model)
    kinds = ", ".join(f"{name} {kind}" for name, kind in model.forest_kinds.items())
    manifest = model.manifest
    hashes = {manifest.files[head.file].sha256 for head in manifest.heads.values()}
    if hashes <= set(_core.compiled_heads()):
        load_model(args.model, forest="compiled")
        kinds += "; compiled too"
    print(f"{model.id}: {len(model.manifest.files)} files match the manifest")
    print(f"  forests reproduce the self-test ({kinds})")
    lowest = check_encoder(
        model.selftest,
        open_encoder(model),
        model.manifest.encoder.file,
        model.path,
    )
    print(
        f"  encoder reproduces the self-test ({len(model.selftest.token_ids)} texts, lowest "
        f"cosine {lowest:.6f})"
    )
    return 0


def _pack(args: argparse.Namespace) -> int:
    from raxe_fast.model import load_model
    from raxe_fast.training.package import pack

    source, target = Path(args.directory), Path(args.archive)
    if not source.is_dir():
        raise NotADirectoryError(f"{source} is not a directory")
    if target.exists() and not args.force:
        raise FileExistsError(f"{target} exists (--force replaces it)")
    model = load_model(source)
    pack(source, target)
    print(f"{model.id}: packed into {target}, {target.stat().st_size:,} bytes")
    return 0


def _unpack(args: argparse.Namespace) -> int:
    from raxe_fast.archive import open_files, read_checked, read_manifest
    from raxe_fast.manifest import MANIFEST, parse_manifest

    target = Path(args.directory)
    if target.exists() and not args.force and any(target.iterdir()):
        raise FileExistsError(f"{target} is not empty (--force writes into it)")
    with open_files(Path(args.archive)) as files:
        raw = read_manifest(files)
        manifest = parse_manifest(raw, files.path)
        content = {MANIFEST: raw}
        for name, spec in manifest.files.items():
            content[name] = read_checked(files, name, spec)
    for name, data in content.items():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    print(f"{manifest.id}: {len(content)} files unpacked into {target}")
    return 0
