"""Checkpoints as one safetensors file each: tensors, and what they are in its metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from trocar.runtime.errors import InvalidInput
from trocar.runtime.files import write_file

_KEY = "trocar"


def write_checkpoint(
    path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], *, schema: str
) -> None:
    """Write tensors and JSON facts as one file, which appears whole.

    Parameters
    ----------
    schema : whose checkpoint it is, such as `trocar.tpgan/1`.
    """
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps({"schema": schema, **facts})
    write_file(path, save(held, metadata={_KEY: text}))


def read_checkpoint(path: Path, *, schema: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_checkpoint` wrote.

    Raises
    ------
    InvalidInput
        No such file, not safetensors, or another schema.
    """
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            text = (file.metadata() or {}).get(_KEY, "{}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        facts = json.loads(text)
    except (OSError, ValueError, SafetensorError) as error:
        raise InvalidInput(f"checkpoint {path.name}: cannot be read: {error}") from None
    if not isinstance(facts, dict) or facts.get("schema") != schema:
        raise InvalidInput(f'checkpoint {path.name}: expected schema "{schema}" in its metadata')
    return tensors, facts


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], name: str) -> None:
    """Put tensors into a module; every one must fit."""
    try:
        module.load_state_dict(dict(tensors), strict=True)
    except RuntimeError as error:
        raise InvalidInput(f"checkpoint {name}: its tensors do not fit the network: {error}") from None


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under `prefix.`."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under `prefix.`, without it."""
    start = f"{prefix}."
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimiser's moments and step counts, flat: `0.exp_avg`, `0.step`, ..."""
    state = optimiser.state_dict()["state"]
    return {f"{index}.{name}": tensor for index, held in state.items() for name, tensor in held.items()}


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimiser_tensors` gave."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = tensor
    whole = optimiser.state_dict()
    optimiser.load_state_dict({"state": state, "param_groups": whole["param_groups"]})
