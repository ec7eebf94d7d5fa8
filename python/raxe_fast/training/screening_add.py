"""Adds screening to a model that is trained already, or replaces the one it has."""

from __future__ import annotations

import json
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raxe_fast.archive import open_files, read_checked, read_manifest
from raxe_fast.manifest import parse_manifest
from raxe_fast.model import load_model
from raxe_fast.training.corpus import find_split, read_corpus
from raxe_fast.training.finetune_options import FinetuneOptions
from raxe_fast.training.folds import Holdout
from raxe_fast.training.kept_parts import kept_screening
from raxe_fast.training.package import model_files, pack, put_in_place, write_json, write_manifest
from raxe_fast.training.screening import ENCODER_MEMBER, HEADS_MEMBER, fit_screening
from raxe_fast.training.screening_choice import ScreeningOptions

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["add_screening", "print_screening", "with_card_section"]

_CARD = "\n## Screening\n"


def add_screening(
    model: Path | str,
    student: Path | str,
    corpus_dir: Path | str,
    *,
    output: Path | str | None = None,
    options: ScreeningOptions | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Adds screening to a trained model, a directory or a .raxe, or replaces the one it has; its
    other members stay as they are but for a section of the card. Returns the report, which a
    directory's report.json holds, too. ``student``: the directory of a tiny fine-tuned encoder, or
    a trained model whose screening network is taken.

    corpus_dir holds train and dev; ``output``: where the result goes, of the same kind as the model
    (default: in its place). Raises as fit_screening does, and CorpusError and ModelError.
    """
    source, root = Path(model), Path(corpus_dir)
    target = source if output is None else Path(output)
    archive = not source.is_dir()
    train = read_corpus(find_split(root, "train")).records
    dev = read_corpus(find_split(root, "dev")).records
    folder = target.with_name(f".{target.name}.partial")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        base, members = _stage(source, folder)
        with tempfile.TemporaryDirectory() as work, ExitStack() as stack:
            kept = stack.enter_context(kept_screening(student, FinetuneOptions().holdout))
            section, report = fit_screening(
                folder,
                kept,
                train,
                dev,
                Path(work),
                main_holdout=_main_holdout(base, folder),
                ngrams=not base["encoder"].get("tuned", {}).get("new_corpus", False),
                options=options,
            )
        members = sorted({*members, ENCODER_MEMBER, HEADS_MEMBER})
        card = folder / "MODEL_CARD.md"
        if card.is_file():
            content = with_card_section(card.read_text(encoding="utf-8"), report)
            card.write_text(content, encoding="utf-8")
        write_manifest(folder, {**base, "screening": section}, members)
        model_id = load_model(folder, forest="packed").id
        if archive:
            pack(folder, target)
            return report
        if (folder / f"{model_id}.raxe").is_file():
            pack(folder, folder / f"{model_id}.raxe")
        record = folder / "report.json"
        if record.is_file():
            known = json.loads(record.read_text(encoding="utf-8"))
            write_json(record, {**known, "screening": report})
        put_in_place(folder, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if console is not None:
        console.print(f"wrote {target}")
    return report


def with_card_section(card: str, report: dict[str, Any]) -> str:
    """A model card with a section on screening, in place of the one it may have."""
    before, _, rest = card.partition(_CARD)
    after = rest.find("\n## ")
    tail = rest[after:] if after >= 0 else ""
    student = report["student"]
    lines = [
        f"A network of {student['layers']} layers of {student['hidden_size']} reads every window "
        "first. What it is certain about the encoder does not read; it can clear, never condemn. "
        "Measured on dev against the same scanner without it; losses are shares of all attacks "
        "that no longer reach the threshold.",
        "",
        "| preset | harmless texts cleared | harmless windows cleared | loss, block | loss, warn |",
        "|---|---|---|---|---|",
    ]
    for name, item in report["presets"].items():
        lines.append(
            f"| {name} | {item['harmless_texts_cleared']:.1%} | "
            f"{item['harmless_windows_cleared']:.1%} | {item['recall_loss']:.2%} | "
            f"{item['warn_loss']:.2%} |"
        )
    if report.get("disguised_attacks"):
        worst = max(max(item["disguised"].values()) for item in report["presets"].values())
        lines += [
            "",
            "What it may clear was also chosen on dev attacks in disguise: padded with harmless "
            "sentences, and reworded against the network. Of no kind it loses more than "
            f"{worst:.1%}.",
        ]
    return before.rstrip("\n") + "\n" + _CARD + "\n" + "\n".join(lines) + "\n" + tail


def print_screening(report: dict[str, Any], console: Console) -> None:
    """The main figures as tables."""
    from rich.table import Table

    table = Table(
        "preset", "clear below", "harmless texts", "harmless windows", "loss, block", "loss, warn",
        title="cleared by screening, on dev",
    )  # fmt: skip
    for name, item in report["presets"].items():
        below = item["clear_below"]
        table.add_row(
            name,
            "nothing" if below is None else f"{below:.2f}",
            f"{item['harmless_texts_cleared']:.1%}",
            f"{item['harmless_windows_cleared']:.1%}",
            f"{item['recall_loss']:.2%}",
            f"{item['warn_loss']:.2%}",
        )
    console.print(table)
    balanced = report["presets"]["balanced"]
    table = Table("tokens", "harmless", "texts cleared", "windows cleared", "attacks", "loss",
                  title="balanced, by length")  # fmt: skip
    for name, item in balanced["by_length"].items():
        table.add_row(
            name, str(item["harmless"]), f"{item['harmless_texts_cleared']:.1%}",
            f"{item['harmless_windows_cleared']:.1%}", str(item["attacks"]),
            f"{item['recall_loss']:.2%}",
        )  # fmt: skip
    console.print(table)
    table = Table("family", "attacks", "loss, block", "loss, warn", title="balanced, by family")
    for name, item in balanced["by_family"].items():
        table.add_row(name, str(item["attacks"]), f"{item['recall_loss']:.2%}",
                      f"{item['warn_loss']:.2%}")  # fmt: skip
    console.print(table)
    if report["disguised_attacks"]:
        table = Table("disguise", "attacks", *report["presets"],
                      title="attacks lost in disguise, by preset")  # fmt: skip
        for kind, count in report["disguised_attacks"].items():
            losses = (item["disguised"][kind] for item in report["presets"].values())
            table.add_row(kind, str(count), *(f"{loss:.2%}" for loss in losses))
        console.print(table)


def _main_holdout(manifest: dict[str, Any], folder: Path) -> Holdout | None:
    """The hold-out of the model's own encoder, as its manifest tells, or, of models made before
    manifests did, its report."""
    try:
        told = manifest["encoder"].get("tuned")
        if told is None:
            report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
            told = report["training"]
        return Holdout(**told["holdout"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _stage(source: Path, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """The model in a folder of its own, without screening; its manifest but for the files, and its
    members."""
    if source.is_dir():
        model_files(source)  # complains before anything is copied
        shutil.copytree(source, folder)
    else:
        folder.mkdir(parents=True)
    with open_files(source) as files:
        raw = read_manifest(files)
        manifest = parse_manifest(raw, files.path)
        for name, spec in manifest.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(read_checked(files, name, spec))
    base = json.loads(raw)
    gone = {ENCODER_MEMBER, HEADS_MEMBER}
    if manifest.screening is not None:
        gone |= {manifest.screening.file, manifest.screening.heads}
    members = [name for name in base.pop("files") if name not in gone]
    base.pop("screening", None)
    for name in gone:
        (folder / name).unlink(missing_ok=True)
    write_manifest(folder, base, members)
    return base, members
