"""Everything a run needs to go on, in one safetensors file (nothing in it can run code)."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from raxe_fast.errors import ModelFormatError
from raxe_fast.training.finetune_model import Network

__all__ = ["CHECKPOINT", "load_checkpoint", "save_checkpoint"]

CHECKPOINT = "checkpoint.safetensors"
_STATE = "state"


def save_checkpoint(
    path: Path,
    network: Network,
    optimiser: torch.optim.Optimizer,
    arrays: Mapping[str, Tensor],
    state: Mapping[str, Any],
) -> None:
    """Writes weights, optimiser moments, random number generators, ``arrays`` and the JSON-safe
    ``state``. A reader sees the old file or the new one, never a part."""
    from safetensors.torch import save_file

    tensors = {f"model.{name}": value for name, value in network.modules.state_dict().items()}
    for name, parameter in network.modules.named_parameters():
        for key, value in optimiser.state[parameter].items():
            tensors[f"optimiser.{name}.{key}"] = torch.as_tensor(value)
    tensors["rng.cpu"] = torch.get_rng_state()
    if network.device.type == "cuda":
        tensors["rng.cuda"] = torch.cuda.get_rng_state(network.device)
    tensors.update({f"array.{name}": value for name, value in arrays.items()})
    unfinished = path.with_suffix(".part")
    save_file(
        {name: value.detach().contiguous() for name, value in tensors.items()},
        str(unfinished),
        metadata={_STATE: json.dumps(state)},
    )
    os.replace(unfinished, path)


def load_checkpoint(
    path: Path, network: Network, optimiser: torch.optim.Optimizer, expected: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Restores network, optimiser and generators in place; (arrays, state) as saved.

    ``expected`` is compared with ``state["run"]``: a run goes on only as what it began as.
    Raises ModelFormatError for a missing, damaged or foreign file, naming what differs.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise ModelFormatError("there is no checkpoint to resume from", path=path)
    try:
        with safe_open(str(path), framework="pt") as file:
            state: dict[str, Any] = json.loads((file.metadata() or {})[_STATE])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        run = state["run"]
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise ModelFormatError(f"cannot be read: {error}", path=path) from error
    different = sorted(k for k in {*run, *expected} if run.get(k) != expected.get(k))
    if different:
        raise ModelFormatError(f"belongs to another run: {', '.join(different)} differ", path=path)
    _restore(tensors, network, optimiser)
    prefix = "array."
    arrays = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    return arrays, state


def _restore(
    tensors: Mapping[str, Tensor], network: Network, optimiser: torch.optim.Optimizer
) -> None:
    prefix = "model."
    network.modules.load_state_dict(
        {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    )
    for name, parameter in network.modules.named_parameters():
        start = f"optimiser.{name}."
        moments = {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}
        if moments:
            # AdamW's moments live beside their parameter; its fused step counter does too.
            optimiser.state[parameter] = {
                key: value.to(parameter.device) for key, value in moments.items()
            }
    torch.set_rng_state(tensors["rng.cpu"])
    if "rng.cuda" in tensors and network.device.type == "cuda":
        torch.cuda.set_rng_state(tensors["rng.cuda"], network.device)
