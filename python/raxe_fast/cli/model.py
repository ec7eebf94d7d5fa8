"""``raxe-fast model info|verify|pack|unpack|list|add-screening``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raxe_fast.model import Model

__all__ = ["add_parser", "run"]

_SCREENING_NEEDS = ("scipy", "onnx", "safetensors")


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
    action = actions.add_parser(
        "add-screening",
        help="add a screening network to a model, or replace it",
        description="Fits the heads and thresholds of a tiny fine-tuned encoder (a directory that "
        "`raxe-fast distill`, or `finetune`, wrote) on train and dev, and adds it to a trained "
        "model, whose own heads stay as they are. Needs the [train] extra.",
    )
    action.add_argument("model", help="model directory or .raxe archive, changed in place")
    action.add_argument("student", help="directory of the tiny encoder")
    action.add_argument("--corpus", required=True, help="directory with train and dev")
    action.add_argument("--output", help="write the model here instead")
    action.add_argument("--backend", choices=("onnxruntime", "native"), default="onnxruntime",
                        help="what runs the encoder for the scores without screening")  # fmt: skip
    action.add_argument("--max-loss", type=float, default=0.002,
                        help="share of attacks that may fall below the block threshold on dev "
                        "(default %(default)s)")  # fmt: skip
    action.add_argument("--max-warn-loss", type=float, default=0.005,
                        help="likewise, the warning threshold (default %(default)s)")  # fmt: skip
    action.add_argument("--harden", type=int, default=0, metavar="N",
                        help="let N dev attacks count in disguise, too: padded and reworded by "
                        "someone who knows the network (default: none)")  # fmt: skip
    action.add_argument(
        "--max-disguised-loss",
        type=float,
        default=0.02,
        help="share of those of each kind that may be lost (default %(default)s)",
    )
    action.add_argument("--jobs", type=int, default=2, help="threads (default %(default)s)")
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
        "add-screening": _add_screening,
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
    screening = manifest.screening
    if screening is not None:
        print(f"  screening: {screening.layers} layers of {screening.hidden_size}")
        for preset, item in screening.presets.items():
            what = "nothing" if item.clear_below is None else f"below {item.clear_below:.3g}"
            print(f"    {preset}: clears {what}; recall loss on dev {item.recall_loss:.2%}")
    print("  files:")
    for name, spec in sorted(manifest.files.items()):
        print(f"    {name}  {spec.size:,} bytes  sha256 {spec.sha256}")
    print(f"    total {sum(spec.size for spec in manifest.files.values()):,} bytes")


def _verify(args: argparse.Namespace) -> int:
    from raxe_fast import _core
    from raxe_fast.model import load_model
    from raxe_fast.screening import open_screen
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
    if open_screen(model) is not None:
        print("  screening reproduces the self-test")
    return 0


def _add_screening(args: argparse.Namespace) -> int:
    from raxe_fast.cli.shared import extras_present

    if not extras_present("model add-screening", "train", _SCREENING_NEEDS):
        return 2
    from rich.console import Console

    from raxe_fast.errors import RaxeFastError
    from raxe_fast.training.screening_add import add_screening, print_screening
    from raxe_fast.training.screening_choice import ScreeningOptions

    console = Console(stderr=True)
    try:
        report = add_screening(
            args.model,
            args.student,
            args.corpus,
            output=args.output,
            options=ScreeningOptions(
                max_recall_loss=args.max_loss,
                max_warn_loss=args.max_warn_loss,
                harden=args.harden,
                max_disguised_loss=args.max_disguised_loss,
                backend=args.backend,
                jobs=args.jobs,
            ),
            console=console,
        )
    except (RaxeFastError, ValueError) as error:
        console.print(f"[red]error:[/red] {error}", highlight=False)
        return 2
    print_screening(report, Console())
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
