"""The command line: ``raxe-fast scan|train|finetune|distill|evaluate|audit|export|model|version``.

Exit codes: 0 all texts were read and none was blocked (warned about, perhaps), 1 a threat was
found, 2 bad usage or input, or a text that could not be read in full. Only the module of the
command that is asked for is imported.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

__all__ = ["main"]

EXIT_OK = 0
EXIT_THREAT = 1
EXIT_BAD = 2
# What shells report for a process killed by SIGINT or SIGPIPE; apart from the verdicts above.
EXIT_INTERRUPTED = 130
EXIT_PIPE = 141

_COMMANDS = {
    "scan": "scan texts: an argument, files, or standard input",
    "train": "train a model on a labelled corpus",
    "finetune": "fine-tune a sentence encoder on a labelled corpus",
    "distill": "distil a fine-tuned encoder into a smaller one",
    "evaluate": "measure a model on a labelled corpus",
    "audit": "find doubtful labels in a corpus",
    "export": "export a sentence encoder to ONNX",
    "model": "show, verify, pack and unpack models",
    "version": "show the version and how it was built",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code (``SystemExit`` for usage errors)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        # Scanned text may hold what the terminal's encoding lacks; that must not end the program.
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
    chosen = next((item for item in arguments if not item.startswith("-")), None)
    parser, module, problem = _build(chosen)
    if problem is not None:
        print(f"raxe-fast: {problem}", file=sys.stderr)
        return EXIT_BAD
    args = parser.parse_args(arguments)
    if args.version:
        module = import_module("raxe_fast.cli.version")
    elif module is None:
        parser.print_help(sys.stderr)
        return EXIT_BAD
    return _run(module, args)


def _build(
    chosen: str | None,
) -> tuple[argparse.ArgumentParser, ModuleType | None, str | None]:
    parser = argparse.ArgumentParser(
        prog="raxe-fast",
        description="Fast local detection of prompt injection and other attacks on language "
        "models. Exit codes: 0 all read and nothing blocked (warnings included), 1 threat found, "
        "2 bad usage or input, or a text that could not be read in full.",
    )
    parser.add_argument("--version", action="store_true", help=_COMMANDS["version"])
    subparsers = parser.add_subparsers(dest="command", metavar="command")
    module: ModuleType | None = None
    for name, summary in _COMMANDS.items():
        if name != chosen:
            subparsers.add_parser(name, help=summary)
            continue
        try:
            module = import_module(f"raxe_fast.cli.{name}")
        except ModuleNotFoundError as error:
            extra = " (pip install 'raxe-fast[train]')" if name != "scan" else ""
            return (
                parser,
                None,
                f"the command {name!r} needs the module {error.name!r}, which is not "
                f"installed{extra}",
            )
        module.add_parser(subparsers)
    return parser, module, None


def _run(module: ModuleType, args: argparse.Namespace) -> int:
    from raxe_fast.errors import RaxeFastError

    try:
        code = int(module.run(args))
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader has gone; keep the interpreter's exit from complaining about it once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE
    except ModuleNotFoundError as error:
        print(
            f"raxe-fast: this needs the module {error.name!r}, which is not installed "
            "(pip install 'raxe-fast[train]')",
            file=sys.stderr,
        )
        return EXIT_BAD
    except (RaxeFastError, OSError, ValueError) as error:
        print(f"raxe-fast: {error}", file=sys.stderr)
        return EXIT_BAD
    except Exception as error:
        # A traceback's exit code is 1, and that says "a threat".
        message = " ".join(str(error).split())
        print(f"raxe-fast: {type(error).__name__}: {message}", file=sys.stderr)
        return EXIT_BAD
