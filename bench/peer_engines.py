"""The contenders of peers.py, and the model files of those that are a plain inference engine."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import random
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from tokenizers import Tokenizer

from engine_worker import SPEC, TOKENIZER
from model_files import ModelLocation
from peer_install import PEERS, Peer, install, private_environment
from texts import compose

__all__ = ["CONTENDERS", "Contender", "Launch"]

HERE = Path(__file__).resolve().parent
WORKER = HERE / "peer_workers.py"
OPENVINO, NNCF = "2026.4.1", "3.4.0"
CALIBRATION = 200  # texts
POSITIONS = 512  # of BERT and DeBERTa, where the file does not say

CUT = "cut off at {} tokens, in its favour: raxe-fast reads all of a text"
LINEAR = "one linear head instead of forests, triggers and explanation, in its favour"
RANDOM = "random weights: its verdicts say nothing"
PIECES = (
    "tokens are raxe-fast's WordPiece tokens: DeBERTa's own vocabulary, four times as large, would "
    "make fewer of some texts"
)


@dataclass(frozen=True, slots=True)
class Contender:
    """One row of the comparison.

    kind: "ours" (this interpreter, backend `engine`), "rival" (a package), or "engine" (a network
    in `engine`). real: its verdicts mean something and are checked.
    """

    name: str
    title: str
    kind: str
    engine: str = ""
    network: str = ""
    peer: Peer | None = None
    real: bool = True


@dataclass(frozen=True, slots=True)
class Launch:
    """How a worker starts, and what goes into the record of it."""

    command: list[str | Path]
    environment: dict[str, str]
    log: Path
    about: dict[str, Any]


def _engine_peer(name: str, title: str, requirement: str) -> Peer:
    common = [f"{package}=={importlib.metadata.version(package)}" for package in _COMMON]
    return Peer(name, title, " ".join([requirement, *common]))


_COMMON = ("tokenizers", "numpy")
_ORT = f"onnxruntime=={importlib.metadata.version('onnxruntime')}"
_RUNTIME = _engine_peer("onnxruntime", "ONNX Runtime", _ORT)
_OPENVINO = _engine_peer("openvino", "OpenVINO", f"openvino=={OPENVINO} nncf=={NNCF}")
_DEBERTA = _engine_peer("deberta", "DeBERTa", _ORT)

CONTENDERS = (
    Contender("raxe-fast", "raxe-fast", "ours", "auto"),
    Contender("raxe-fast-native", "raxe-fast, large alone, native", "ours", "native"),
    Contender("raxe-fast-onnxruntime", "raxe-fast, large alone, ORT", "ours", "onnxruntime"),
    Contender(
        "onnxruntime",
        "ONNX Runtime, same encoder",
        "engine",
        "onnxruntime",
        "encoder.onnx",
        _RUNTIME,
    ),
    Contender(
        "openvino", "OpenVINO, same encoder", "engine", "openvino", "encoder.onnx", _OPENVINO
    ),
    Contender("openvino-int8", "OpenVINO, NNCF INT8", "engine", "openvino", "nncf.xml", _OPENVINO),
    *(Contender(peer.name, peer.title, "rival", peer=peer) for peer in PEERS),
    Contender(
        "deberta",
        "DeBERTa-v3-base shape, random weights",
        "engine",
        "onnxruntime",
        "deberta.onnx",
        _DEBERTA,
        real=False,
    ),
)


def launch(contender: Contender, root: Path, model: ModelLocation, threads: int) -> Launch:
    """Installs and prepares what the contender needs below `root`.

    Raises CalledProcessError where pip or a preparation fails, RuntimeError for what is missing.
    """
    if contender.peer is None:
        return _ours(contender, root, model, threads)
    peer = contender.peer
    python, packages = install(peer, root)
    # The environment of a package may serve several contenders; each has its own HOME and files.
    folder = root / contender.name
    folder.mkdir(parents=True, exist_ok=True)
    name, settings = peer.name, {"threads": threads}
    if contender.kind == "engine":
        name, files = "engine", folder / "files"
        _prepare(contender, files, python, folder, model)
        settings["folder"] = str(files.resolve())
    command: list[str | Path] = [
        python.absolute(), "-I", WORKER, name, json.dumps(settings)
    ]  # fmt: skip
    about = {"requirement": peer.requirement, "packages": packages}
    return Launch(command, private_environment(folder), folder / "worker.log", about)


def _ours(contender: Contender, root: Path, model: ModelLocation, threads: int) -> Launch:
    folder = root / contender.name
    given = None if model.given is None else str(model.given)
    settings = {"model": given, "threads": threads, "backend": contender.engine, "first": None}
    if contender.engine == "auto":  # as it comes: the shipped small model before the large one
        settings["first"] = "auto"
    command: list[str | Path] = [sys.executable, WORKER, "raxe-fast", json.dumps(settings)]
    # An installed package needs no PYTHONPATH; a source tree does.
    kept = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    environment = {**private_environment(folder), **kept}
    return Launch(command, environment, folder / "worker.log", {})


def _prepare(
    contender: Contender, files: Path, python: Path, folder: Path, model: ModelLocation
) -> None:
    """Writes engine.json, tokenizer.json and the network into `files`, anew for each run: a file
    left from another model would be measured without a word. Only DeBERTa's is kept."""
    kept = files / contender.network
    if contender.name != "deberta" and files.exists():
        shutil.rmtree(files)
    files.mkdir(parents=True, exist_ok=True)
    source = model.directory / "tokenizer.json"
    shutil.copyfile(source, files / TOKENIZER)
    if contender.name == "deberta":
        if not kept.is_file():
            _write_deberta(kept)
        weight, bias, limit = None, 0.0, POSITIONS
        notes = [RANDOM, PIECES, CUT.format(limit)]
    else:
        encoder = model.directory / "encoder.onnx"
        weight, bias, trained = linear_head(model.directory)
        limit = _positions(encoder)
        notes = [CUT.format(limit), LINEAR, *([] if trained else [RANDOM])]
        shutil.copyfile(encoder, files / "encoder.onnx")
        if contender.network != "encoder.onnx":
            _quantise(python, folder, files, contender.network)
    spec = {
        "engine": contender.engine,
        "network": contender.network,
        "max_tokens": limit,
        "weight": weight,
        "bias": bias,
        "notes": notes,
    }
    (files / SPEC).write_text(json.dumps(spec) + "\n", encoding="utf-8")


def linear_head(model: Path) -> tuple[list[float], float, bool]:
    """(weight, bias, trained): the model's linear detector, or random numbers where it has none."""
    path = model / "features.npz"
    if path.is_file():
        with np.load(path, allow_pickle=False) as arrays:
            row = [str(name) for name in arrays["linear_names"]].index("attack")
            weight, bias = arrays["linear_weight"][row], arrays["linear_bias"][row]
        return [float(value) for value in weight], float(bias), True
    manifest = json.loads((model / "manifest.json").read_text(encoding="utf-8"))
    rng = np.random.default_rng(0)
    return rng.standard_normal(manifest["encoder"]["hidden_size"]).tolist(), 0.0, False


def _positions(encoder: Path) -> int:
    metadata = {
        item.key: item.value for item in onnx.load(encoder, load_external_data=False).metadata_props
    }
    return int(metadata.get("max_positions", POSITIONS))


def _quantise(python: Path, folder: Path, files: Path, network: str) -> None:
    """NNCF calibrates on composed texts of 8 to 128 tokens."""
    tokenizer = Tokenizer.from_file(str(files / TOKENIZER))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    rng = random.Random(1)
    rows = [
        tokenizer.encode(
            compose(tokenizer, rng.randint(8, 128), attack=bool(i % 2), seed=i)
        ).ids
        for i in range(CALIBRATION)
    ]  # fmt: skip
    ids = folder / "calibration.json"
    ids.write_text(json.dumps(rows), encoding="utf-8")
    command = [
        python.absolute(), "-I", HERE / "openvino_quantise.py",
        files / "encoder.onnx", ids, files / network,
    ]  # fmt: skip
    with (folder / "quantise.log").open("wb") as log:
        subprocess.run(
            command,
            env=private_environment(folder),
            stdout=log,
            stderr=subprocess.STDOUT,
            check=True,
        )


def _write_deberta(path: Path) -> None:
    """In a process of its own: torch and two copies of the weights take gigabytes."""
    missing = [name for name in ("torch", "transformers") if not importlib.util.find_spec(name)]
    if missing:
        raise RuntimeError(f"needs {' and '.join(missing)}: pip install '.[finetune]'")
    unfinished = path.with_name(f"unfinished-{path.name}")
    subprocess.run([sys.executable, HERE / "deberta_shape.py", unfinished], check=True)
    unfinished.rename(path)
